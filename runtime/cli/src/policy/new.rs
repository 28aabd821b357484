//! `tidegate policy new`: writes a project that builds and answers as it is.

use super::args::New;
use crate::{Done, Failure};

pub(super) fn new(args: &New) -> Done {
    Err(Failure::failed(format!("{}", args.dir.display())))
}
