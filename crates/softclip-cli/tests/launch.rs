//! `softclip launch`: what it starts, prints and refuses.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Output, Stdio};

use child::output;

#[path = "../../softclip-distributed/tests/ranks/child.rs"]
mod child;
#[allow(dead_code)] // Here only the command is of use.
mod support;

fn softclip(line: &str) -> Output {
    let mut command = support::softclip(&line.split_whitespace().collect::<Vec<_>>());
    // With it libtorch writes of what is no error.
    command.env_remove("TORCH_CPP_LOG_LEVEL");
    output(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn ranks_exchange_tensors_and_one_prints() {
    let Output { status, stdout, stderr } = softclip("launch -n 2 -- bench comm --mib 0.01,0.1 --repeats 2");
    let (out, err) = (text(&stdout), text(&stderr));
    assert!(status.success(), "{out}{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(out.starts_with("       bytes  all_reduce") && out.contains("\n       10480 "), "{out}");
    assert!(!err.lines().any(|l| l.contains("error")), "{err}");
}

#[test]
fn a_rank_that_fails_is_named_with_its_reason() {
    let Output { status, stdout, stderr } = softclip("launch -n 2 -- config no/such/config.yaml");
    let err = text(&stderr);
    assert_eq!((status.code(), text(&stdout).as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("failed first, with exit status: 1; its last lines:"), "{err}");
    // Of either: the launcher may end the other before it has come as far.
    let told = |l: &str| (l.starts_with("[0] error:") || l.starts_with("[1] error:")) && l.contains("no/such/config.yaml");
    assert!(err.lines().any(told), "{err}");
}

#[test]
fn wrong_usage_is_told_once() {
    for (line, expected) in [
        ("launch -n 2", "<COMMAND>"),
        ("launch -n 0 -- bench comm", "'0'"),
        ("launch -- bench comm", "--ranks"),
        ("launch -n 2 -- bench com", "'comm'"),
        ("launch -n 2 bench comm", "bench"),
    ] {
        let output = softclip(line);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {err}");
        assert!(err.contains(expected) && !err.contains("[0]"), "{line}: {err}");
    }
    let output = softclip("launch -n 2 -- launch -n 2 -- bench comm");
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("cannot start launches"));
    let help = text(&softclip("launch --help").stdout);
    assert!(help.contains("softclip launch -n 2 -- bench comm") && help.contains("--max-restarts"), "{help}");
}

#[test]
fn one_process_cannot_measure_an_exchange() {
    let output = softclip("bench comm");
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("softclip launch -n 2 -- bench comm"));
}
