//! `tidegate quarantine`: shows which inputs made the core of a site panic, and gives them another try.

use std::path::Path;

use tidegate_runtime::crash::{self, Crash};
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::{Blocking, Seams};
use tidegate_runtime::store::OpenError;

use crate::args::{Quarantine, QuarantineAction};
use crate::{Done, Exit, Failure, say};

pub(crate) async fn quarantine(args: Quarantine) -> Done {
    match args.action {
        QuarantineAction::List(dir) => {
            let mut crashes = of(&dir.data_dir, crash::list_dir).await?;
            if crashes.is_empty() {
                say("nothing made the core panic");
            }
            crashes.sort_by_key(|crash| std::cmp::Reverse((crash.count, crash.last)));
            for crash in &crashes {
                say(&line(crash));
            }
        }
        QuarantineAction::Clear(dir) => {
            let cleared = of(&dir.data_dir, crash::clear_dir).await?;
            say(&format!("cleared {cleared}: the next start tries everything again"));
        }
    }
    Ok(())
}

fn line(crash: &Crash) -> String {
    let state = if crash.is_quarantined() { "quarantined" } else { "counted" };
    format!("{state}  {crash} (version {})", crash.program)
}

async fn of<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce(&<RealSeams as Seams>::Disk, &Path) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, Failure> {
    let seams = RealSeams::new();
    let (disk, dir) = (*seams.disk(), dir.to_path_buf());
    let done = seams.blocking().run(move || work(&disk, &dir)).await;
    done.map_err(|error| Failure::new(Exit::DataDirectory, format!("quarantine: {error}")))
}
