//! `tidegate replay`: repeats the journal of a data directory and compares.

use std::path::Path;

use tidegate_runtime::real::RealSeams;
use tidegate_runtime::replay::{Divergence, Report, verify_dir};
use tidegate_runtime::seam::{Blocking, Seams};

use crate::args::Replay;
use crate::{Done, Exit, Failure, say};

pub(crate) async fn replay(args: Replay) -> Done {
    if !args.verify {
        return Err(Failure::new(
            Exit::Usage,
            "nothing to do: add --verify to compare the journal with the records",
        ));
    }
    say(&format!("journal replayed: {}", verify(&args.data_dir).await?));
    Ok(())
}

/// Repeats the journal in `dir` and compares.
pub(crate) async fn verify(dir: &Path) -> Result<Report, Failure> {
    let seams = RealSeams::new();
    let (disk, dir) = (*seams.disk(), dir.to_path_buf());
    seams.blocking().run(move || verify_dir(&disk, &dir)).await.map_err(|divergence| {
        let exit = match divergence {
            Divergence::Open(_) => Exit::DataDirectory,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("replay: {divergence}"))
    })
}
