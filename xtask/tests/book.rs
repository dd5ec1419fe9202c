//! The book holds together: every page is in its table of contents, every link leads somewhere, and every test that a page names
//! as its proof is there. `cargo xtask check book` renders it with mdBook, which looks for none of this.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::util;

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<(PathBuf, String)> {
    let root = util::root();
    let mut pages = files(&root.join("docs/src"), "md");
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    assert!(pages.len() > 20, "only {} pages", pages.len());
    pages.into_iter().map(|page| (page.clone(), fs::read_to_string(page).unwrap())).collect()
}

/// The targets of `[text](target)` that lie in the checkout, without their fragments.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split(['#', ' ']).next().unwrap_or_default());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).collect()
}

#[test]
fn links_lead_somewhere_and_every_page_is_in_the_contents() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let directory = page.parent().unwrap();
        // Code may look like a link.
        let prose: String = text.split("```").step_by(2).collect();
        let lost = links(&prose).into_iter().filter(|link| !directory.join(link).exists());
        wrong.extend(lost.map(|link| format!("{}: {link} is not there", page.display())));
    }
    let book = util::root().join("docs/src");
    let contents = fs::read_to_string(book.join("SUMMARY.md")).unwrap();
    let mut listed: Vec<PathBuf> = links(&contents).into_iter().map(|link| book.join(link)).collect();
    // A part of another page is there with that.
    for (page, text) in pages() {
        let parts = text.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next());
        listed.extend(parts.map(|part| page.parent().unwrap().join(part)));
    }
    let missing = files(&book, "md").into_iter().filter(|page| !page.ends_with("SUMMARY.md") && !listed.contains(page));
    wrong.extend(missing.map(|page| format!("{} is not in SUMMARY.md", page.display())));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Full names of all tests below a directory, as the test runner has them: the file's path is the module's.
fn tests(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for file in files(directory, "rs") {
        let module = file.strip_prefix(directory).unwrap().with_extension("");
        let module = module.to_string_lossy().replace('/', "::").replace("::mod", "");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("#[tokio::test]", "#[test]").replace("#[tokio::test(start_paused = true)]", "#[test]");
        let functions = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
        names.extend(functions.map(|function| format!("{module}::{function}")));
    }
    names
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let root = util::root();
    let mut names = tests(&root.join("exporter/tests/e2e"));
    assert!(names.len() > 80, "only {} end-to-end tests", names.len());
    names.extend(tests(&root.join("exporter/gobinary/tests")));
    let mut wrong = Vec::new();
    let mut named = 0;
    for (page, text) in pages() {
        for rest in text.split("cargo xtask test ").skip(1) {
            let command: Vec<&str> =
                rest.split(['`', '\n', '#']).next().unwrap_or_default().split_whitespace().collect();
            let words = command.into_iter().filter(|word| !word.starts_with("--") && *word != "NAME");
            for word in words {
                named += 1;
                if !names.iter().any(|name| name.contains(word)) {
                    wrong.push(format!("{}: no test has {word:?} in its name", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(named > 20, "only {named} commands name a test");
}

/// Full names of all tests of the checkout but xtask's.
fn all_tests() -> Vec<String> {
    let directories =
        ["exporter/tests/e2e", "exporter/gobinary", "exporter/instruments/src", "exporter/src", "exporter-ebpf/src"];
    directories.iter().flat_map(|directory| tests(&util::root().join(directory))).collect()
}

/// What went wrong once on the road to the HPA is held by tests.
#[test]
fn every_finding_of_the_road_to_the_hpa_names_its_tests() {
    let names = all_tests();
    let page = fs::read_to_string(util::root().join("docs/src/testing.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| F")).collect();
    let numbers: Vec<&str> = rows.iter().filter_map(|row| row.split(' ').nth(1)).collect();
    assert_eq!(numbers, (1..=24).map(|number| format!("F{number}")).collect::<Vec<_>>());
    for row in rows {
        let tests: Vec<&str> = row.rsplit("| ").next().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        let lost = tests.iter().find(|test| !names.iter().any(|name| name.ends_with(&format!("::{test}"))));
        assert!(!tests.is_empty() && lost.is_none(), "no test {lost:?}: {row}");
    }
}

/// What a limit says is shown by a test, or it says that none does.
#[test]
fn every_limit_names_its_test() {
    let root = util::root();
    let names = all_tests();
    let page = fs::read_to_string(root.join("docs/src/limits.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit |"));
    let cells = rows.map(|row| row.trim_end_matches(" |").rsplit("| ").next().unwrap_or_default());
    let told: Vec<&str> = cells.chain(page.lines().filter_map(|line| line.trim().strip_prefix("Test: "))).collect();
    assert!(told.len() > 50, "only {} limits", told.len());
    let mut wrong = Vec::new();
    for text in told {
        let named: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !text.starts_with("none") {
            wrong.push(text.to_owned());
        }
        let is_there = |test: &str| names.iter().any(|name| name.ends_with(&format!("::{test}")));
        wrong.extend(named.iter().filter(|test| !is_there(test)).map(|test| format!("no test {test}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
