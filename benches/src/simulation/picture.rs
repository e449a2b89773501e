//! The table as a picture: p99 of each policy, a line a scenario.

use std::fmt::Write;

/// How a policy is drawn.
struct Style {
    policy: &'static str,
    colour: &'static str,
    /// Filled, and larger: what is compared with the others.
    held: bool,
}

const fn style(policy: &'static str, colour: &'static str, held: bool) -> Style {
    Style { policy, colour, held }
}

const STYLES: [Style; 10] = [
    style("adaptive", "#7fb3e6", true),
    style("adaptive, reports", "#2f7fcc", true),
    style("adaptive, probes", "#0b4a8f", true),
    style("prequal", "#8e5bb5", false),
    style("peak_ewma", "#2c9c5a", false),
    style("least_request", "#d08a00", false),
    style("weighted_round_robin", "#b0524a", false),
    style("round_robin", "#e0554f", false),
    style("random", "#999999", false),
    style("pick_first", "#bbbbbb", false),
];

/// What is drawn, scenario by scenario.
#[derive(Debug, Default)]
pub struct Picture {
    rows: Vec<(&'static str, Vec<(String, f64)>)>,
}

/// Sizes in pixels, and the largest ratio that has a place of its own.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 860.0;
const TOP: f64 = 96.0;
const LINE: f64 = 24.0;
const MOST: f64 = 20.0;

impl Picture {
    /// A scenario begins.
    pub fn scenario(&mut self, name: &'static str) {
        self.rows.push((name, Vec::new()));
    }

    /// A policy's p99 in the last scenario, as a ratio to the oracle's.
    pub fn point(&mut self, policy: &str, ratio: f64) {
        if let Some((_, points)) = self.rows.last_mut() {
            points.push((policy.to_owned(), ratio));
        }
    }

    /// The picture, without an empty line, so that it may stand in a page of Markdown.
    #[must_use]
    pub fn svg(&self) -> String {
        let height = TOP + LINE * self.rows.len() as f64 + 12.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {height}\" width=\"100%\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>p99 by policy and scenario</title>\n\
             <desc>Each line is a scenario, each point a policy: how many times the p99 of an oracle it reached. \
             Further left is better; what is past {MOST} is drawn at {MOST}.</desc>\n"
        );
        self.legend(&mut svg);
        for tick in [1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, MOST] {
            let (x, bottom) = (place(tick), height - 8.0);
            line(
                &mut svg,
                format_args!(
                    "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#888\" stroke-opacity=\".35\"/>\
                 <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#888\">{tick}×</text>",
                    TOP - 6.0
                ),
            );
        }
        for (at, (name, points)) in self.rows.iter().enumerate() {
            let y = TOP + LINE * (at as f64 + 0.5);
            line(
                &mut svg,
                format_args!(
                    "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#888\">{name}</text>",
                    LEFT - 10.0,
                    y + 4.0
                ),
            );
            // What is held against the others lies on top.
            for held in [false, true] {
                for style in STYLES.iter().filter(|style| style.held == held) {
                    let of = points.iter().filter(|(policy, ratio)| policy == style.policy && ratio.is_finite());
                    of.for_each(|(_, ratio)| line(&mut svg, format_args!("{}", style.mark(place(*ratio), y))));
                }
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// A picture has each point once, those past its edges on them, and no empty line.
    pub(super) fn check() -> Result<(), String> {
        let mut picture = Self::default();
        picture.scenario("even");
        picture.point("adaptive", 1.05);
        picture.point("random", 1e9);
        picture.point("round_robin", f64::NAN);
        picture.scenario("slow");
        picture.point("adaptive", 0.9);
        let svg = picture.svg();
        let edges = [LEFT, RIGHT].map(|edge| svg.contains(&format!("cx=\"{edge:.1}\"")));
        // Three in the legend, and three that are numbers.
        let right = svg.matches("<circle").count() == 3 + 3
            && edges == [true; 2]
            && svg.lines().all(|line| !line.trim().is_empty())
            && svg.starts_with("<svg")
            && svg.ends_with("</svg>\n");
        if right { Ok(()) } else { Err(format!("a picture is not what it is of: {svg}")) }
    }

    fn legend(&self, svg: &mut String) {
        let there =
            |style: &&Style| self.rows.iter().any(|(_, points)| points.iter().any(|(is, _)| is == style.policy));
        for (at, style) in STYLES.iter().filter(there).enumerate() {
            let (x, y) = (20.0 + 175.0 * (at % 5) as f64, 18.0 + 22.0 * (at / 5) as f64);
            let (mark, policy) = (style.mark(x, y), style.policy);
            line(
                svg,
                format_args!("{mark}<text x=\"{:.0}\" y=\"{:.0}\" fill=\"#888\">{policy}</text>", x + 12.0, y + 4.0),
            );
        }
    }
}

impl Style {
    fn mark(&self, x: f64, y: f64) -> String {
        let colour = self.colour;
        let drawn = if self.held {
            format!("r=\"6\" fill=\"{colour}\"")
        } else {
            format!("r=\"4\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"")
        };
        format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" {drawn}/>")
    }
}

/// Where a ratio is drawn: by its logarithm.
fn place(ratio: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * ratio.clamp(1.0, MOST).ln() / MOST.ln()
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _ = writeln!(svg, "{text}");
}
