//! The site's own rules, the very files of the core: what stands in when a policy fails, and what this module says,
//! cannot drift apart.

#[path = "../../../core/src/policy/builtin.rs"]
pub mod builtin;
#[path = "../../../core/src/policy/question.rs"]
pub mod question;
