//! `tidegate policy new`: writes a project that builds and answers as it is. What stands in it is the policies' library's.

use std::path::Path;

use tidegate_policies::author::templates;

use super::args::{Lang, New};
use super::desk;
use crate::{Done, Exit, Failure, say};

pub(super) fn new(args: &New) -> Done {
    let name = name_of(&args.dir);
    if !templates::is_name(&name) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{name:?} is no name of a policy: small letters, digits and hyphens, a letter first, at most 64; the last \
                 part of DIR is the name"
            ),
        ));
    }
    let files = match args.lang {
        Lang::Rust => templates::rust(&name, args.hook),
        Lang::C => templates::c(&name, args.hook),
    };
    desk::make_empty(&args.dir)?;
    for (path, text) in &files {
        let file = args.dir.join(path);
        desk::make(file.parent().unwrap_or(&args.dir))?;
        desk::write(&file, text.as_bytes())?;
    }
    let source = match args.lang {
        Lang::Rust => "src/lib.rs",
        Lang::C => "policy.c",
    };
    let dir = args.dir.display();
    say(&format!("wrote a policy for {} into {dir}", args.hook.name()));
    say(&format!("  {source:<21}  what it decides: the file to change"));
    say("  vectors/first.jsonl    a question with the answer it must give");
    say("  wit/policy.wit         every field of every question");
    say(&format!("next: tidegate policy build {dir}"));
    Ok(())
}

/// The last part of a path; of `.` that of the directory it stands for.
fn name_of(dir: &Path) -> String {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_named_after_the_last_part_of_its_directory() {
        assert_eq!(name_of(Path::new("policies/night")), "night");
        assert_eq!(name_of(Path::new("night/")), "night");
        assert_eq!(name_of(Path::new("/")), "");
    }
}
