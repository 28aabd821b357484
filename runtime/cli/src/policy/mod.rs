//! `tidegate policy`: the tools of a policy's author, and the wishes of a site's operator. Decides nothing about
//! recordings.

pub(crate) mod args;
mod bench;
mod build;
mod check;
mod desk;
mod example;
mod list;
mod local;
mod new;
mod replay;
mod run;
mod settings;
mod sign;
mod site;
mod vectors;

use self::args::{Policy, PolicyCommand};
use crate::Done;

pub(crate) async fn policy(args: Policy) -> Done {
    match args.command {
        PolicyCommand::New(args) => new::new(&args),
        PolicyCommand::Build(args) => build::build(&args),
        PolicyCommand::Check(args) => check::check(&args),
        PolicyCommand::Run(args) => run::run(&args),
        PolicyCommand::Bench(args) => bench::bench(&args),
        PolicyCommand::Replay(args) => replay::replay(&args),
        PolicyCommand::Diff(args) => replay::diff(&args),
        PolicyCommand::Sign(args) => sign::sign(&args),
        PolicyCommand::Pin(args) => sign::pin(&args),
        PolicyCommand::Load(args) => site::load(args).await,
        PolicyCommand::Activate(args) => site::activate(args).await,
        PolicyCommand::Shadow(args) => site::shadow(args).await,
        PolicyCommand::Reset(args) => site::reset(args).await,
        PolicyCommand::Rollback(args) => site::rollback(args).await,
        PolicyCommand::List(args) => list::list(args).await,
        PolicyCommand::History(args) => list::history(args).await,
        PolicyCommand::Quarantine(args) => site::quarantine(args).await,
        PolicyCommand::Unquarantine(args) => site::unquarantine(args).await,
        PolicyCommand::Decisions(args) => site::decisions(args).await,
    }
}

/// The first digits of a hash: enough to tell modules apart, and what every command takes for the whole.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_their_end() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1 000"), (12_345_678, "12 345 678")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(short(&"3f2a".repeat(16)), "3f2a3f2a3f2a");
        assert_eq!(short(""), "");
    }
}
