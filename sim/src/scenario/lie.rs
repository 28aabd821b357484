//! What a buggy or hostile device says. Names alone: how it is said is the device's business.

/// What a buggy or hostile device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// A state update without a state.
    EmptyState,
    /// The answer to a get_state without data, or with rubbish.
    EmptyAnswer,
    /// That it is idle though it is not.
    FalseIdle,
    /// That it records a task it does not have.
    FalseRecording,
    /// A state update with an old timestamp.
    OldUpdate,
    /// Idle, and the id of its current task with it.
    IdleWithTask,
    /// The answer to its last command again, with the opposite word.
    RepeatedAnswer,
    /// An answer to a command nobody sent.
    StrayAnswer,
    /// No JSON.
    Garbage,
    /// JSON with fields of the wrong type.
    WrongTypes,
    /// `upload_complete` for a recording it never uploaded.
    FalseComplete,
    /// `upload_complete` with a digest that is not that of the file.
    WrongDigest,
    /// `upload_complete` that names the key of another device's recording.
    ForeignKey,
    /// `upload_not_found` for the task it is about to upload.
    FalseNotFound,
    /// `upload_failed` for a task.
    FalseFailed,
    /// A finish callback for a task of another device.
    ForeignCallback,
    /// A finish callback in the middle of a recording.
    EarlyFinish,
    /// The same finish callback again.
    RepeatedFinish,
    /// A start callback for a finished task.
    LateStart,
    /// Its recording again, with other content under the same key.
    OtherContent,
    /// A status with the short form only.
    ShortStatus,
    /// Its recording again, with other content and no digest beside it, and `upload_complete` that names the key and
    /// neither size nor digest: nobody vouches for it.
    SilentComplete,
}

impl Lie {
    /// Every lie.
    pub const ALL: [Lie; 22] = [
        Lie::EmptyState,
        Lie::EmptyAnswer,
        Lie::FalseIdle,
        Lie::FalseRecording,
        Lie::OldUpdate,
        Lie::IdleWithTask,
        Lie::RepeatedAnswer,
        Lie::StrayAnswer,
        Lie::Garbage,
        Lie::WrongTypes,
        Lie::FalseComplete,
        Lie::WrongDigest,
        Lie::ForeignKey,
        Lie::FalseNotFound,
        Lie::FalseFailed,
        Lie::ForeignCallback,
        Lie::EarlyFinish,
        Lie::RepeatedFinish,
        Lie::LateStart,
        Lie::OtherContent,
        Lie::ShortStatus,
        Lie::SilentComplete,
    ];
}
