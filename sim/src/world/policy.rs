//! Policies as a site may have them: the built-in ones, or a guest that asks for less or more than is good. Decides
//! nothing but what its manner says; clamping it is the core's business.

use tidegate_core::limits;
use tidegate_core::policy::{
    Bandwidth, Builtin, Candidate, Chosen, Ordering, Policies, RetryQuery, RetryVerdict, Ruling, Settings,
    Situation, UploadLimits, Waiting,
};

use crate::scenario::Manner;

/// The policies of one process of a site.
#[derive(Debug)]
pub(crate) struct Guest {
    floor: Builtin,
    manner: Manner,
    /// Questions for how many uploads may run.
    asked: u64,
}

impl Guest {
    pub(crate) fn new(settings: Settings, manner: Manner) -> Guest {
        Guest { floor: Builtin::new(settings), manner, asked: 0 }
    }
}

impl Policies for Guest {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.floor.select(situation, candidates)
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.floor.retry(query)
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        self.asked += 1;
        let mut ruling = self.floor.limits(situation);
        match self.manner {
            Manner::Builtin => {}
            Manner::Hesitant if self.asked.is_multiple_of(3) => {}
            Manner::Hesitant => ruling.verdict.uploads = 0,
            Manner::Greedy => ruling.verdict.uploads = limits::UPLOADS_MAX,
        }
        ruling
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.floor.budget(situation)
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.floor.score(situation, waiting)
    }
}
