//! What the example programs share: flags, and the generated greeter.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each program uses its part")]

use std::{collections::VecDeque, fmt::Display, process::exit, str::FromStr};

pub mod helloworld {
    #![allow(unused_qualifications, missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("helloworld");
}

/// The command line, as flags with values, switches, and the rest.
#[derive(Debug)]
pub struct Flags {
    usage: &'static str,
    values: Vec<(String, String)>,
    switches: Vec<String>,
    rest: VecDeque<String>,
}

impl Flags {
    /// Reads the command line; on a mistake or `--help` says so and ends the program.
    pub fn read(usage: &'static str, with_value: &[&str], switches: &[&str]) -> Self {
        let mut flags = Self { usage, values: Vec::new(), switches: Vec::new(), rest: VecDeque::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (arg, None),
            };
            if name == "--help" || name == "-h" {
                println!("{usage}");
                exit(0);
            } else if with_value.contains(&name.as_str()) {
                let Some(value) = inline.or_else(|| args.next()) else {
                    flags.wrong(format!("{name} lacks its value"))
                };
                flags.values.push((name, value));
            } else if switches.contains(&name.as_str()) && inline.is_none() {
                flags.switches.push(name);
            } else if name.starts_with('-') {
                flags.wrong(format!("there is no {name}"));
            } else {
                flags.rest.push_back(inline.map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            }
        }
        flags
    }

    /// The values of a flag, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a flag.
    pub fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Option<T> {
        self.all(name)
            .last()
            .map(|value| value.parse().unwrap_or_else(|error| self.wrong(format!("{name} {value}: {error}"))))
    }

    /// Whether a switch is set.
    pub fn has(&self, name: &str) -> bool {
        self.switches.iter().any(|switch| switch == name)
    }

    /// The next argument that belongs to no flag.
    pub fn next(&mut self) -> Option<String> {
        self.rest.pop_front()
    }

    /// Ends the program with what is wrong and how it is used.
    pub fn wrong(&self, what: impl Display) -> ! {
        eprintln!("{what}\n\n{}", self.usage);
        exit(2);
    }
}

/// A code as gRPC writes it: `DEADLINE_EXCEEDED`.
pub fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for char in format!("{code:?}").chars() {
        if char.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(char.to_uppercase());
    }
    name
}
