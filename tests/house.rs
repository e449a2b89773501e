//! The house: who may import whom, and how long a file may be. See CONTRIBUTING.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the ground up: a module names only modules below it.
const ORDER: [&str; 17] = [
    "error", "util", "instance", "target", "endpoint", "observe", "tls", "registry", "load", "report", "filter",
    "balance", "resolver", "channel", "server", "bridge", "testing",
];

/// On one floor: neither knows the other.
const STRANGERS: [(&str, &str); 3] = [("registry", "load"), ("channel", "server"), ("filter", "balance")];

/// What a module may name above itself, as one exception: etcd speaks gRPC, so its client stands on
/// the channel as any client does, and a channel over its fixed members asks no registry.
const UPWARDS: [(&str, &[&str]); 1] = [("src/registry/etcd", &["channel", "balance"])];

/// No I/O, no clock, no task: what lets a simulation run the real code.
const PURE: [&str; 8] = ["instance", "target", "endpoint", "load", "report", "filter", "balance", "resolver"];

const MAX_LINES: usize = 400;

struct File {
    path: PathBuf,
    /// Without comments and inline tests.
    code: String,
    lines: usize,
}

fn files(directory: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let code =
                    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
                found.push(File { lines: text.lines().count(), code, path });
            }
        }
    }
    assert!(!found.is_empty(), "no files in {directory}");
    found
}

impl File {
    /// The module of the crate that this file belongs to; none for the crate's root.
    fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let name = first.trim_end_matches(".rs");
        (name != "lib").then(|| name.to_owned())
    }

    fn is_tests(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.parent().is_some_and(|directory| directory.ends_with("tests"))
    }

    /// What it names of its own crate.
    fn imports(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == '$') {
                continue;
            }
            let rest = &self.code[at + "crate::".len()..];
            let heads = rest.strip_prefix('{').map_or_else(|| vec![rest], heads);
            names.extend(heads.iter().map(|head| ident(head)));
        }
        names
    }
}

/// The items of a braced list, nested lists skipped.
fn heads(list: &str) -> Vec<&str> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(list[start..at].trim());
                start = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn ident(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

fn floor(module: &str) -> usize {
    ORDER.iter().position(|name| *name == module).unwrap_or_else(|| panic!("{module} has no place in the house"))
}

#[test]
fn a_module_names_only_those_below_it() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files("src").iter().filter(|file| !file.is_tests()) {
        let Some(module) = file.module() else { continue };
        for import in file.imports() {
            seen += 1;
            let import = match import.as_str() {
                "Result" | "Error" | "Kind" => "error".to_owned(),
                name if name.starts_with(char::is_uppercase) => {
                    wrong.push(format!("{}: crate::{name} hides the module it is from", file.path.display()));
                    continue;
                }
                _ => import,
            };
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let is_let =
                |(from, to): &(&str, &[&str])| file.path.starts_with(root.join(from)) && to.contains(&&*import);
            if UPWARDS.iter().any(is_let) {
                continue;
            }
            let stranger = |(a, b): &(&str, &str)| [(*a, *b), (*b, *a)].contains(&(&module, &import));
            if floor(&import) > floor(&module) || STRANGERS.iter().any(stranger) {
                wrong.push(format!("{}: {module} names {import}", file.path.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: is this test blind?");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_registry_does_not_name_another() {
    const BACKENDS: [&str; 7] = ["consul", "etcd", "file", "fixed", "kubernetes", "memory", "zookeeper"];
    for file in files("src/registry") {
        let name = file.path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry")).unwrap();
        let own = name.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        for other in BACKENDS.iter().filter(|other| BACKENDS.contains(&own.as_str()) && **other != own) {
            let named = [format!("super::{other}"), format!("registry::{other}")];
            assert!(!named.iter().any(|name| file.code.contains(name)), "{} names {other}", file.path.display());
        }
    }
}

#[test]
fn one_place_spawns_and_the_pure_floors_are_pure() {
    let mut wrong = Vec::new();
    let files = files("src");
    for file in files.iter().filter(|file| !file.is_tests()) {
        let module = file.module().unwrap_or_default();
        if !file.path.ends_with("util/task.rs") {
            let spawns = [
                "tokio::spawn",
                "spawn_blocking",
                "thread::spawn",
                "JoinSet",
                "LocalSet",
                "block_on(",
                "thread::sleep",
            ];
            wrong.extend(spawns.iter().filter(|spawn| file.code.contains(**spawn)).map(|spawn| (&file.path, *spawn)));
        }
        if PURE.contains(&module.as_str()) {
            let impure =
                ["::now()", "std::fs", "tokio::net", "tokio::time", "tokio::fs", "task::spawn", "std::process"];
            wrong.extend(impure.iter().filter(|thing| file.code.contains(**thing)).map(|thing| (&file.path, *thing)));
        }
        if !file.path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observe")) {
            wrong.extend(file.code.contains("tracing::").then_some((&file.path, "tracing")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests", "examples", "benches"].into_iter().flat_map(files);
    let long: Vec<_> = all.filter(|file| file.lines > MAX_LINES).map(|file| (file.path, file.lines)).collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
}
