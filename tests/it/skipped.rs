//! Runs last and prints what the tests before it skipped, and why.
#![allow(clippy::print_stdout, reason = "printing is its purpose")]

mod skip;

fn main() {
    let text = std::fs::read_to_string(skip::list()).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() {
        println!("\nskipped: nothing");
    } else {
        println!("\nskipped: {}", lines.len());
        for line in lines {
            println!("  {line}");
        }
    }
    // The next run starts with an empty list.
    let _ = std::fs::remove_file(skip::list());
    // `skip` is shared with the tests; here it only names the file.
    let _ = [skip::skip as fn(&str, &str), skip::cannot_be_had];
}
