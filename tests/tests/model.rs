//! The model, a short run: what connections are promised, in virtual time. `cargo xtask model` is the long one.

use anyhow::Result;
use clap::Parser as _;
use maglev_e2e::model::{Arguments, run};

#[test]
fn connections_are_kept_as_promised() -> Result<()> {
    run(&Arguments::try_parse_from(["model", "--short"])?)
}

#[test]
fn what_cannot_be_modelled_is_refused() {
    for words in
        [&["--flows", "10"][..], &["--flows", "many"], &["--seed", "-1"], &["--ecmp", "none"], &["histories", "x"]]
    {
        let error = Arguments::try_parse_from(["model"].iter().chain(words)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn figures_are_not_made_if_they_cannot_be_written() {
    let words = ["model", "--short", "--json", "/nowhere/figures.json"];
    let error = run(&Arguments::try_parse_from(words).unwrap()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/figures.json"), "{error:#}");
}
