//! The bank of planted bugs: their names, and the only door through which one gets into a machine. The bugs themselves
//! stand where a person would have made them, behind `planted!`. Must not change what an ordinary build does.
//!
//! A build with `TIDEGATE_BUGS=1` in its environment has them all compiled in and every one switched off; the boot input
//! picks one ([`Knobs::planting`]). An ordinary build has no field to pick one with, and the branch of a bug is never
//! reached there, because its condition is the literal `false`.
//!
//! B: patterns known from systems of this kind. X: further ones, so that every invariant has one. H: bugs this core had;
//! the old behaviour is planted again.

use core::fmt;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::id::{ConnId, DeviceId, Role, WireId};
use crate::knobs::Knobs;
use crate::time::Mono;

#[cfg(all(tidegate_bugs, not(debug_assertions)))]
compile_error!("planted bugs never get into a release: unset TIDEGATE_BUGS, or build with debug assertions");

/// Whether this build has the bugs compiled in.
pub const PLANTED: bool = cfg!(tidegate_bugs);

macro_rules! bank {
    ($($(#[$doc:meta])* $id:ident,)*) => {
        /// A planted bug; its documentation says what is wrong. Ids are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[$doc])* $id,)* }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Bug] = &[$(Bug::$id,)*];

            /// Its id, for instance `B01`.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Bug::$id => stringify!($id),)* }
            }
        }
    };
}

bank! {
    /// A lost link takes its device's newer link with it.
    B01,
    /// What a replaced link says still counts.
    B02,
    /// A newcomer is turned away while its device's old link counts as up.
    B03,
    /// An answer to `get_state` that names no state counts as confirmed.
    B04,
    /// `config` and `begin` are sent though the state is not confirmed.
    B05,
    /// A command that is not answered in time counts as failed, and is sent again under another request id.
    B06,
    /// An answer counts although its call has ended, or belongs to another link.
    B07,
    /// Calls of a link that is lost or replaced are dropped, and nobody is told.
    B08,
    /// A sync request claims a claimed job once more, and the first claim's outcomes still count.
    B09,
    /// Jobs claimed in an earlier boot are not taken up again.
    B10,
    /// An outcome counts for whatever has the same number in this boot.
    B11,
    /// A job is completed when `Complete` is sent, not when it is confirmed.
    B14,
    /// When the answer to `Complete` is lost, the recording is sent again under another key.
    B15,
    /// Parts that the store lists are believed without comparing them with anything.
    B16,
    /// The multipart upload of a job that gave up is never aborted.
    B17,
    /// Progress counts parts that are sent and not acknowledged.
    B18,
    /// Refused credentials fail the job for good.
    B19,
    /// A recording is acknowledged as soon as its uploader says that it is there.
    B20,
    /// A policy that cannot be loaded leaves none.
    B25,
    /// Attempts spent are forgotten at every boot.
    B26,
    /// The order of effects depends on addresses in memory.
    B29,
    /// Nothing bounds the calls that wait on one link.
    B30,
    /// A push confirms a state that was never answered for on this link.
    X01,
    /// A task that a device gave back keeps its wire id although that was begun.
    X02,
    /// A late finish callback brings a failed or cancelled task back.
    X03,
    /// A recorder that reports idle gives its running task back.
    X04,
    /// While the way is down a sync request is accepted and not recorded.
    X05,
    /// A job that used up its attempts is queued again by itself.
    X06,
    /// The edge copy is removed when the store completed the upload, before the job is.
    X07,
    /// Edge copies are removed when the wall clock says so.
    X08,
    /// A retry waits for the wall clock.
    X09,
    /// A `get_state` that failed is never asked again.
    X10,
    /// A takeover closes the newer link as well.
    X11,
    /// A delay is not clamped, whatever a policy asks for.
    X12,
    /// A policy that lets nothing begin is not asked again by itself.
    X13,
    /// Nothing bounds the parts in flight.
    X14,
    /// A command that changes the device is sent while another one is out.
    X15,
    /// A push whose clock lies before that of an earlier one counts.
    X16,
    /// A task's owner is not compared with the device that speaks of it.
    X17,
    /// A lost `upload_request` is never made again.
    X18,
    /// A look at a recording that ended without an answer is never repeated.
    X19,
    /// A retry does not say which policies decided it.
    X20,
    /// The record that counts jobs is not written with the job that it counts.
    X21,
    /// A `Create` whose answer was lost is asked again without looking for what it left.
    X22,
    /// Another's object at our key is overwritten.
    X23,
    /// The site approves by itself whatever its check found.
    X24,
    /// A check that nobody answered is never repeated.
    X25,
    /// A recorder's message of an unknown type is taken for impossible: the core panics.
    X26,
    /// An upload that waits is expected to have a part to send when its deadline comes: the core panics if it has none.
    X27,
    /// An operation on our own store is taken for one that cannot fail: the core panics if it does.
    X28,
    /// A restart forgets which modules are barred.
    X29,
    /// An ejected module makes room for the default, though a good one is there.
    X30,
    /// A restart forgets the faults of modules.
    X31,
    /// A probation never ends.
    X32,
    /// A module that cannot be made ready is activated all the same.
    X33,
    /// Going back to an earlier set brings back modules that are barred.
    X34,
    /// A policy is given what another one noted.
    X35,
    /// A policy that let nothing begin for too long is overruled, and stays.
    X36,
    /// Answers that took too long count like any fault, whoever else was late.
    X37,
    /// What an ejection leaves is not made ready.
    X38,
    /// Takeovers are not counted.
    X39,
    /// The pause of a contest never ends.
    X40,
    /// A contested id is turned away although no link is up.
    X41,
    /// A greeting before a question that failed is forgotten.
    X42,
    /// A configuration that an unconfirmed link says it took counts.
    X43,
    /// A recorder whose link is lost loses its tasks at once.
    X44,
    /// An uploader whose link is lost takes the tasks of its device with it.
    X45,
    /// After a boot nobody waits for devices that do not come back.
    X46,
    /// An idle recorder leaves its tasks where they are.
    X47,
    /// What is put back owes nothing.
    X48,
    /// The recording of an earlier attempt is not taken up again.
    X49,
    /// An earlier attempt is taken up again although the next one was begun.
    X50,
    /// A wire id is begun again after a refusal.
    X51,
    /// The end of a recording whose callback was lost is never looked for.
    X52,
    /// What a device holds against its records is not shown.
    X53,
    /// A conflict is settled without a look at what the caller saw.
    X54,
    /// A recording that an uploader lists as waiting is not looked at.
    X55,
    /// A key that belongs to another attempt is taken.
    X56,
    /// What was announced of a recording is not compared with what is stored.
    X57,
    /// An acknowledgement leaves only on the link on which the recording was announced.
    X58,
    /// Recordings of tasks that are over are ignored.
    X59,
    /// A greeting of an uploader that was garbage is never asked for again.
    X60,
    /// A recording that waits and whose key nobody said is forgotten.
    X61,
    /// `upload_not_found` ends the asking before the store was asked.
    X62,
    /// A request to an uploader whose answer never came is never repeated on the same link.
    X63,
    /// A knock without a fitting token is admitted where one is demanded.
    X66,
    /// The link of a token that was revoked stays.
    X67,
    /// A command that waited for a fresh state is sent without asking the tasks again.
    H01,
    /// Any "not there" ends the duty to abort an upload.
    H02,
    /// Any "not there" answers any question about something being there.
    H03,
    /// An upload is sealed without checking its source again.
    H04,
    /// A source that was once not as verified ends the job for good.
    H05,
    /// Our own upload stays open beside an equal object of another writer.
    H06,
    /// Parts sent while the source was another one count later.
    H08,
    /// A store that once refuses to list makes the janitor forget.
    H09,
    /// A later claim that says less takes back the digest that was announced.
    H10,
    /// A recording of which nobody said anything is believed.
    H11,
    /// Recordings at the edge are not frozen.
    H12,
    /// A recording is accepted without a last look at whether it was replaced.
    H13,
    /// A repeated claim is acknowledged without evidence.
    H14,
    /// Parts whose answer was lost are sent again though the store lists them.
    H15,
    /// The records of tasks that waiting commands name are not read before the step that may end them.
    H16,
    /// A policy may put more parts in flight than there is memory for.
    H17,
    /// An upload whose completion does not say its mode counts as one with a sidecar, whatever its start said.
    H18,
    /// An answer without a task is taken for the task that the caller named, whatever the command told the device.
    H19,
    /// What an uploader's list says of an upload under way is forgotten.
    H20,
    /// After a restart a job may wait as long as any job may, if the wall clock was set back meanwhile.
    H21,
    /// The parts that were sent are not compared with those of the recording before an upload is sealed.
    H22,
}

impl Bug {
    /// The bug of an id.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.id() == id)
    }
}

impl<C> Encode<C> for Bug {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.id())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Bug {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let id = d.str()?;
        Bug::from_id(id).ok_or_else(|| minicbor::decode::Error::message("no such bug"))
    }
}

/// This build has no bugs to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCompiled {
    /// The one that was asked for.
    pub bug: Bug,
}

impl fmt::Display for NotCompiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bug {} is not compiled in: build with TIDEGATE_BUGS=1", self.bug.id())
    }
}

impl core::error::Error for NotCompiled {}

impl Knobs {
    /// The same settings with this bug in the machine that boots with them. An error in an ordinary build.
    #[cfg(tidegate_bugs)]
    pub fn planting(mut self, bug: Bug) -> Result<Knobs, NotCompiled> {
        self.bug = Some(bug);
        Ok(self)
    }

    /// The same settings with this bug in the machine that boots with them. An error in an ordinary build.
    #[cfg(not(tidegate_bugs))]
    pub fn planting(self, bug: Bug) -> Result<Knobs, NotCompiled> {
        Err(NotCompiled { bug })
    }
}

/// The bug in the default settings: none, except in the core's own tests, where the environment may name one.
#[cfg(all(tidegate_bugs, not(test)))]
pub(crate) fn by_default() -> Option<Bug> {
    None
}

#[cfg(all(tidegate_bugs, test))]
pub(crate) use tests::by_default;

/// Links that were replaced, for the bugs that take them for current ones. Empty in an ordinary build.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    #[cfg(tidegate_bugs)]
    links: alloc::collections::BTreeMap<ConnId, (DeviceId, Role)>,
}

impl Replaced {
    /// Remembers whose link it was.
    pub(crate) fn put(&mut self, conn: ConnId, device: &DeviceId, role: Role) {
        #[cfg(tidegate_bugs)]
        self.links.insert(conn, (device.clone(), role));
        let _ = (conn, device, role);
    }

    /// Whose link it was.
    pub(crate) fn whose(&self, conn: ConnId) -> Option<(DeviceId, Role)> {
        #[cfg(tidegate_bugs)]
        return self.links.get(&conn).cloned();
        #[cfg(not(tidegate_bugs))]
        {
            let _ = conn;
            None
        }
    }
}

/// Until when links that are gone were contested, for the bug that still counts it. Empty in an ordinary build.
#[derive(Debug, Default)]
pub(crate) struct Haunted {
    #[cfg(tidegate_bugs)]
    until: alloc::collections::BTreeMap<(DeviceId, Role), Mono>,
}

impl Haunted {
    /// Remembers until when.
    pub(crate) fn put(&mut self, device: &DeviceId, role: Role, until: Mono) {
        #[cfg(tidegate_bugs)]
        self.until.insert((device.clone(), role), until);
        let _ = (device, role, until);
    }

    /// Until when.
    pub(crate) fn until(&self, device: &DeviceId, role: Role) -> Option<Mono> {
        #[cfg(tidegate_bugs)]
        return self.until.get(&(device.clone(), role)).copied();
        #[cfg(not(tidegate_bugs))]
        {
            let _ = (device, role);
            None
        }
    }
}

/// Which link announced a recording first, for the bug that acknowledges it only there. Empty in an ordinary build.
#[derive(Debug, Default)]
pub(crate) struct Heralds {
    #[cfg(tidegate_bugs)]
    links: alloc::collections::BTreeMap<(DeviceId, WireId), ConnId>,
}

impl Heralds {
    /// Remembers on which link it was announced.
    pub(crate) fn put(&mut self, device: &DeviceId, wire: &WireId, conn: Option<ConnId>) {
        #[cfg(tidegate_bugs)]
        if let Some(conn) = conn {
            self.links.entry((device.clone(), wire.clone())).or_insert(conn);
        }
        let _ = (device, wire, conn);
    }

    /// Whether it was announced on another link than this one.
    pub(crate) fn elsewhere(&self, device: &DeviceId, wire: &WireId, conn: Option<ConnId>) -> bool {
        #[cfg(tidegate_bugs)]
        return self.links.get(&(device.clone(), wire.clone())).is_some_and(|herald| Some(*herald) != conn);
        #[cfg(not(tidegate_bugs))]
        {
            let _ = (device, wire, conn);
            false
        }
    }
}

/// Where a value lies, spread as by a table that hashes addresses: another order in every process.
pub(crate) fn scattered<T>(value: &T) -> usize {
    core::ptr::from_ref(value).addr().wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as usize)
}

/// Whether this bug is planted: `$at` is something with a field `bug`, the knobs or a part that took it from them at
/// boot. In an ordinary build there is no such field, and this is the literal `false`: the branch behind it is never
/// reached.
#[cfg(tidegate_bugs)]
macro_rules! planted {
    ($at:expr, $($bug:ident)|+) => {
        matches!(($at).bug, Some($($crate::bug::Bug::$bug)|+))
    };
}

/// As above, in an ordinary build.
#[cfg(not(tidegate_bugs))]
macro_rules! planted {
    ($at:expr, $($bug:ident)|+) => {
        false
    };
}

pub(crate) use planted;

#[cfg(test)]
#[path = "bug_tests.rs"]
mod tests;
