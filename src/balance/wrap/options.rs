//! Wrappers as options of a policy's text.

use std::{fmt::Write as _, time::Duration};

use super::{super::policy::Options, Failover, OutlierEjection, Policy, Prefer, SlowStart, near::By, outliers::Rule};
use crate::{error::Result, target::parse_duration};

/// Takes the options of wrappers, and wraps the policy in them: the innermost first.
pub(in super::super) fn take_wrappers(mut policy: Policy, options: &mut Options<'_>) -> Result<Policy> {
    let panic = take_percent(options, "panic_threshold")?;
    let (zone, region) = (take_name(options, "prefer_zone")?, take_name(options, "prefer_region")?);
    let ejection = take_ejection(options)?;
    if panic.is_some() && zone.is_none() && region.is_none() && ejection.is_none() {
        return Err(options.wrong("panic_threshold needs outlier_ejection=true, prefer_zone or prefer_region"));
    }
    let panic = panic.unwrap_or(super::PANIC);
    if let Some(zone) = zone {
        policy = policy.with_preference(Prefer::zone(zone).panic_threshold(panic));
    }
    if let Some(region) = region {
        policy = policy.with_preference(Prefer::region(region).panic_threshold(panic));
    }
    if let Some(failover) = take_failover(options)? {
        policy = policy.with_failover(failover);
    }
    if let Some(slow_start) = take_slow_start(options)? {
        policy = policy.with_slow_start(slow_start);
    }
    Ok(match ejection {
        Some(ejection) => policy.with_outlier_ejection(ejection.panic_threshold(panic)),
        None => policy,
    })
}

fn take_name(options: &mut Options<'_>, key: &str) -> Result<Option<String>> {
    options.take(key, "a name", |text| (!text.is_empty()).then(|| text.to_owned()))
}

fn take_percent(options: &mut Options<'_>, key: &str) -> Result<Option<u32>> {
    options.take(key, "a number from 0 to 100", |text| text.parse().ok().filter(|percent| *percent <= 100))
}

fn take_number(options: &mut Options<'_>, key: &str) -> Result<Option<u32>> {
    options.take(key, "a number", |text| text.parse().ok())
}

fn take_time(options: &mut Options<'_>, key: &str) -> Result<Option<Duration>> {
    let time = |text: &str| parse_duration(text).filter(|time| !time.is_zero());
    options.take(key, "a time above 0 such as 10s or 500ms", time)
}

/// A wrapper's settings, if it is on; an error if it is not, and has settings.
fn only_if<T: PartialEq + Default>(on: bool, set: T, options: &Options<'_>, need: &str) -> Result<Option<T>> {
    if !on && set != T::default() {
        return Err(options.wrong(format_args!("the settings need {need}")));
    }
    Ok(on.then_some(set))
}

fn take_ejection(options: &mut Options<'_>) -> Result<Option<OutlierEjection>> {
    let on = options.take_switch("outlier_ejection", false)?;
    let mut set = OutlierEjection::new();
    if let Some(interval) = take_time(options, "ejection_interval")? {
        set = set.interval(interval);
    }
    let base = take_time(options, "base_ejection_time")?.unwrap_or(set.base);
    let longest = take_time(options, "max_ejection_time")?.unwrap_or(set.longest);
    set = set.ejection_time(base, longest);
    if let Some(most) = take_percent(options, "max_ejection_percent")? {
        set = set.max_ejection_percent(most);
    }
    let rate = &mut set.success_rate;
    rate.bound = take_number(options, "success_rate_stdev_factor")?.unwrap_or(rate.bound);
    take_rule(options, "success_rate", rate)?;
    let failures = &mut set.failure_percentage;
    failures.bound = take_percent(options, "failure_percentage_threshold")?.unwrap_or(failures.bound);
    take_rule(options, "failure_percentage", failures)?;
    only_if(on, set, options, "outlier_ejection=true")
}

fn take_rule(options: &mut Options<'_>, name: &str, rule: &mut Rule) -> Result<()> {
    rule.enforcement = take_percent(options, &format!("{name}_enforcement"))?.unwrap_or(rule.enforcement);
    rule.minimum_hosts = take_number(options, &format!("{name}_minimum_hosts"))?.unwrap_or(rule.minimum_hosts);
    rule.request_volume = take_number(options, &format!("{name}_request_volume"))?.unwrap_or(rule.request_volume);
    Ok(())
}

fn take_failover(options: &mut Options<'_>) -> Result<Option<Failover>> {
    let on = options.take_switch("failover", false)?;
    let mut set = Failover::new();
    if let Some(percent) = take_percent(options, "failover_threshold")? {
        set = set.threshold(percent);
    }
    if let Some(timeout) = take_time(options, "failover_timeout")? {
        set = set.timeout(timeout);
    }
    only_if(on, set, options, "failover=true")
}

fn take_slow_start(options: &mut Options<'_>) -> Result<Option<SlowStart>> {
    let window = take_time(options, "slow_start")?;
    let aggression = options.take("slow_start_aggression", "a number from 0.01 to 100", |text| {
        text.parse().ok().filter(|aggression| (0.01..=100.0).contains(aggression))
    })?;
    let least = take_percent(options, "slow_start_min_weight")?;
    let Some(window) = window else {
        let alone = aggression.is_some() || least.is_some();
        return if alone { Err(options.wrong("the settings need slow_start=10s")) } else { Ok(None) };
    };
    let mut set = SlowStart::new(window);
    if let Some(aggression) = aggression {
        set = set.aggression(aggression);
    }
    if let Some(least) = least {
        set = set.min_weight(least);
    }
    Ok(Some(set))
}

/// The options that say something, as they are written behind a policy's name.
#[derive(Default)]
struct Text(String);

impl Text {
    fn put<T: Copy + PartialEq + std::fmt::Display>(&mut self, key: &str, value: T, default: T) {
        if value != default {
            let _ = write!(self.0, ",{key}={value}");
        }
    }

    fn time(&mut self, key: &str, time: Duration, default: Duration) {
        if time != default {
            let _ = write!(self.0, ",{key}={}", seconds(time));
        }
    }
}

/// A time as text that [`parse_duration`] reads.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

impl OutlierEjection {
    pub(super) fn text(&self) -> String {
        let (default, mut text) = (Self::default(), Text::default());
        text.put("outlier_ejection", true, false);
        text.time("ejection_interval", self.interval, default.interval);
        text.time("base_ejection_time", self.base, default.base);
        text.time("max_ejection_time", self.longest, default.longest);
        text.put("max_ejection_percent", self.most_percent, default.most_percent);
        let rules = [
            ("success_rate", "stdev_factor", self.success_rate, default.success_rate),
            ("failure_percentage", "threshold", self.failure_percentage, default.failure_percentage),
        ];
        for (name, bound, rule, default) in rules {
            text.put(&format!("{name}_{bound}"), rule.bound, default.bound);
            text.put(&format!("{name}_enforcement"), rule.enforcement, default.enforcement);
            text.put(&format!("{name}_minimum_hosts"), rule.minimum_hosts, default.minimum_hosts);
            text.put(&format!("{name}_request_volume"), rule.request_volume, default.request_volume);
        }
        text.put("panic_threshold", self.panic_percent, default.panic_percent);
        text.0
    }
}

impl Failover {
    pub(super) fn text(&self) -> String {
        let (default, mut text) = (Self::default(), Text::default());
        text.put("failover", true, false);
        text.put("failover_threshold", self.threshold, default.threshold);
        text.time("failover_timeout", self.timeout, default.timeout);
        text.0
    }
}

impl SlowStart {
    pub(super) fn text(&self) -> String {
        let (default, mut text) = (Self::new(self.window), Text::default());
        text.time("slow_start", self.window, Duration::MAX);
        text.put("slow_start_aggression", self.aggression, default.aggression);
        text.put("slow_start_min_weight", self.least_percent, default.least_percent);
        text.0
    }
}

impl Prefer {
    pub(super) fn text(&self) -> String {
        let mut text = Text::default();
        let key = match self.by {
            By::Zone => "prefer_zone",
            By::Region => "prefer_region",
        };
        text.put(key, &*self.own, "");
        text.put("panic_threshold", self.panic_percent, super::PANIC);
        text.0
    }
}
