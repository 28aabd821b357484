//! Every bound, with its name and how it was chosen. Relations between bounds are asserted at compile time.

use core::time::Duration;

/// Bytes of a device or task id: what fits a path segment and a metric label.
pub const ID_BYTES: usize = 128;
/// Bytes of a wire id: a task id, a dot and the ten digits of the largest attempt.
pub const WIRE_BYTES: usize = ID_BYTES + 11;
/// Bytes of an object key: S3's own bound.
pub const KEY_BYTES: usize = 1024;
/// Facts one step may deliver before we call it a loop. The longest legal chain is about ten; an orderly stop ends every
/// call and every wait of every link in one step, a fact each. The rest is room for what one input may set off for each
/// of many jobs and recordings.
pub const FACTS_PER_STEP: usize = 2 * LINKS_MAX * (CALLS_PER_LINK + WAITERS_PER_LINK) + 20_000;
/// Parts of one multipart upload: S3's own bound.
pub const PARTS_MAX: u64 = 10_000;
/// Smallest part of a multipart upload but the last: S3's own bound.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Largest part we plan: bounds the memory of one part in flight.
pub const PART_BYTES_MAX: u64 = 512 << 20;
/// Largest recording: what 10,000 parts of the largest size can carry, below S3's 5 TiB.
pub const OBJECT_BYTES_MAX: u64 = PARTS_MAX * PART_BYTES_MAX;
/// Largest sidecar we read into facts: real ones are a few KiB.
pub const SIDECAR_BYTES_MAX: u64 = 4 << 20;
/// Links of one role; further upgrades are turned away. One edge site has hundreds of devices; ten thousand are what it is
/// measured with. How many fit a process also depends on its descriptors.
pub const LINKS_MAX: usize = 16_384;
/// RPCs waiting for an answer on one link.
pub const CALLS_PER_LINK: usize = 16;
/// Requests that wait for one `get_state` of one link: a dashboard and a few scripts, not a crowd.
pub const WAITERS_PER_LINK: usize = 64;
/// First pause before a failed `get_state` is repeated; it doubles with each failure.
pub const SYNC_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause before a failed `get_state` is repeated: a silent recorder costs two frames a minute.
pub const SYNC_RETRY_MAX: Duration = Duration::from_secs(30);
/// An uploader that owes a status and says something else so much later has answered: it was garbage. From then on the
/// schedule asks for recordings without its list.
pub const STATUS_OWED_MAX: Duration = Duration::from_secs(60);
/// An uploader that owes a status and says nothing at all for so long has dropped the question: no file takes that long to read.
pub const STATUS_LOST: Duration = Duration::from_secs(600);
/// How long a fresh uploader link may be silent before it is asked for its list: known uploaders greet at once, and a
/// large greeting is sometimes garbage on the wire.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Longest pause between two questions to an uploader that something is waited for from.
pub const UPLOADER_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Objects of one name that a search tells of: more than one is as good as none.
pub const FOUND_MAX: usize = 8;
/// Devices whose version of the state stream is remembered: every device that can be connected at once.
pub const VERSIONS_MAX: usize = 2 * LINKS_MAX;
/// Bytes of a device's word for its state, or of a message's type: known ones have at most 16.
pub const WORD_BYTES: usize = 64;
/// Bytes of the message in an RPC answer that we pass on.
pub const RPC_MESSAGE_BYTES: usize = 4 << 10;
/// Waiting verifications per device: one per recording that waits for its acknowledgement.
pub const VERIFIES_PER_DEVICE: usize = 256;
/// Wait before a recording that was not there, or could not be read, is looked at again; doubles with every try.
pub const VERIFY_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such wait: a device that waits for its acknowledgement waits about a minute longer than it must.
pub const VERIFY_RETRY_MAX: Duration = Duration::from_secs(60);
/// Episodes whose edge copy is being removed at once: removal is cheap and never urgent.
pub const REMOVALS_AT_ONCE: usize = 16;
/// Wait before a failed removal is tried again; doubles with every try up to `REMOVE_RETRY_MAX`.
pub const REMOVE_RETRY_MIN: Duration = Duration::from_secs(10);
/// Longest such wait.
pub const REMOVE_RETRY_MAX: Duration = Duration::from_secs(600);
/// Recordings whose content is checked at once: nobody waits for it, and devices and uploads need the disk as well.
pub const INSPECTIONS_AT_ONCE: usize = 1;
/// Wait before a check that nobody answered, or whose recording could not be read, is asked again; doubles with every
/// try up to `INSPECT_RETRY_MAX`.
pub const INSPECT_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const INSPECT_RETRY_MAX: Duration = Duration::from_secs(60);
/// Verdicts of the site itself in one step, when it was told only now to give them: a step stays short.
pub const VERDICTS_AT_ONCE: usize = 100;
/// Bytes of a device's message type that we keep of a message we do not know.
pub const TYPE_BYTES: usize = 64;
/// Raw `data` of an RPC answer that we carry and journal; larger ones are replaced by a digest.
pub const RPC_DATA_BYTES: usize = 64 << 10;
/// Entries of a transfer status that we keep (those not completed).
pub const STATUS_UPLOADS: usize = 1024;
/// Bytes of an error or reason text we store.
pub const REASON_BYTES: usize = 512;

/// Devices that may be registered: twice those that can be connected at once.
pub const DEVICES_REGISTERED_MAX: usize = 2 * LINKS_MAX;
/// Tokens at once: two for each registered device, and those of the API are few.
pub const TOKENS_MAX: usize = 2 * DEVICES_REGISTERED_MAX + 256;
/// New keys that a device may name in [`KEYS_WINDOW`] and under which no recording was found: each is a record for ever.
pub const KEYS_UNPROVEN_MAX: u32 = 1_024;
/// How long they count.
pub const KEYS_WINDOW: Duration = Duration::from_secs(3600);
/// Different factories among registered devices. Whoever may register can make them up.
pub const FACTORIES_MAX: u32 = 8_192;
/// Different types among registered devices.
pub const ROBOT_TYPES_MAX: u32 = 8_192;
/// Bytes of the name of a factory, a type or a token.
pub const NAME_BYTES: usize = 128;
/// Shortest time between two notes that a token was used.
pub const TOKEN_USED_EVERY: Duration = Duration::from_secs(60);
/// Within how long programs must displace each other to count as fighting: stock clients come back within seconds.
pub const CONTEST_WINDOW: Duration = Duration::from_secs(30);
/// How often an address that was displaced may come back within [`CONTEST_WINDOW`]: a robot that changes its network
/// does so once, or twice.
pub const CONTEST_TURNS: u32 = 3;
/// How often one address may take over from itself within [`CONTEST_WINDOW`]: also a robot whose link breaks does so.
pub const CONTEST_TURNS_ONE_ADDRESS: u32 = 6;
/// Takeovers of one link that are remembered: enough to see either of the two above.
pub const CONTEST_TURNS_KEPT: usize = 8;
/// Longest pause of a fight: how long the right one of two programs may have to wait.
pub const CONTEST_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A fight is over when nobody took over for so long: stock clients come back at least every two minutes.
pub const CONTEST_QUIET: Duration = Duration::from_secs(600);
/// Bytes of a recorder's own words that are kept for viewers; known ones have a few hundred.
pub const RAW_BYTES: usize = 4 << 10;

/// How long a recorder may take to come back after a restart of the site: the longest pause of stock programs is 60 s, a
/// fifth more by chance, and the rest is for the handshakes of a whole fleet.
pub const RETURN_MAX: Duration = Duration::from_secs(90);
/// On how many links a recording that is owed may be said not to be there before it is believed: the first time it may
/// not have been closed yet.
pub const OWED_ASKS: u8 = 2;
/// How long an uploader that was asked for a recording may say nothing of it before its task is put back: it reads all of
/// it for its digest first, and that is 30 GB at 100 MB/s.
pub const PROBE_MAX: Duration = Duration::from_secs(300);
/// Recordings of attempts that were given up that are asked for in one go.
pub const OWED_AT_ONCE: usize = 8;
/// Earlier attempts that a task remembers.
pub const ATTEMPTS_KEPT: usize = 16;
/// Keys that an attempt gets before anything is uploaded under them, in one boot: uploaders make a new one for each day on
/// which they queue a recording.
pub const KEYS_PER_ATTEMPT: usize = 16;
/// Bytes of a task's configuration as JSON.
pub const CONFIG_BYTES: usize = 64 << 10;
/// Candidates shown to a policy at once.
pub const CANDIDATES: usize = 256;
/// Longest delay a policy may ask for; longer ones are clamped.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most uploads at once, whatever a policy says: beyond it a site's way is shared, not used better. Memory is bound
/// by [`IN_FLIGHT_BYTES_MAX`].
pub const UPLOADS_MAX: u32 = 64;
/// Bytes of all parts in flight at once, as configured: uploads × parts in flight × part size. Each may be held in
/// memory until the store answers; a site that has more to spare gains nothing, its way is full long before. Only
/// recordings that do not fit 10,000 parts of the configured size go beyond it: they are cut into larger ones.
pub const IN_FLIGHT_BYTES_MAX: u64 = 4 << 30;
/// A due job that waited longer than this goes first, whatever an order policy says: no score can starve a job.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// While jobs are due, the policy is asked again after this how many may run, unless it said when.
pub const LIMITS_AGAIN: Duration = Duration::from_secs(60);
/// Shortest time after which a policy may ask to be asked again.
pub const RECHECK_MIN: Duration = Duration::from_secs(1);
/// Longest such time: how late a policy may notice that its hour has come.
pub const RECHECK_MAX: Duration = Duration::from_secs(3600);
/// Longest time for which a policy may put off everything on purpose, whatever it says of itself: a week, and a day for
/// the clock.
pub const PATIENCE_MAX: Duration = Duration::from_secs(8 * 24 * 3600);
/// Shortest time for which a policy may put off recordings that nobody asked for: one that waits for the weekend is not
/// stuck.
pub const SCAN_PATIENCE_MIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a policy that scans is asked after a start of the process before it is overruled, however long ago it was
/// chosen: a site that was off for weeks must see a night first.
pub const SCAN_START: Duration = Duration::from_secs(24 * 3600);
/// How long a policy is not asked again about a recording that it skipped.
pub const SKIP: Duration = Duration::from_secs(24 * 3600);
/// Rules that give labels to devices: a fleet has kinds, not a rule per device.
pub const LABEL_RULES_MAX: usize = 256;
/// Different keys of labels: each question carries those of up to 256 devices.
pub const LABELS_MAX: usize = 16;
/// Bytes of a key or value of a label: as much as a word needs.
pub const LABEL_BYTES: usize = 64;
/// Shortest delay after a failed attempt, whatever a policy says: keeps a broken policy from spinning.
pub const DELAY_MIN: Duration = Duration::from_secs(1);
/// Attempts a job may spend, whatever a policy says: the upper end of `sync.attempts`.
pub const ATTEMPTS_MAX: u32 = 100;
/// First delay after the way failed; it doubles with every failure in a row.
pub const WAY_DELAY_MIN: Duration = Duration::from_secs(1);
/// Longest delay after the way failed, jitter excluded: how late we may notice that it is back.
pub const WAY_DELAY_MAX: Duration = Duration::from_secs(60);
/// How often one upload session is begun again because the store lost it.
pub const RESTARTS_MAX: u32 = 3;
/// Questions an upload may ask again in a row, within one claim, because no answer came.
pub const ASK_AGAIN: u32 = 4;
/// Parts an upload may send again in a row, within one claim, because no answer came: each costs its bytes.
pub const SEND_AGAIN: u32 = 2;
/// First delay before a question is asked again; it doubles each time in a row.
pub const ASK_DELAY: Duration = Duration::from_secs(1);
/// Longest delay before an abandoned upload is tried to be given up again.
pub const TIDY_DELAY_MAX: Duration = Duration::from_secs(600);
/// Shortest time between two questions for the bandwidth.
pub const BANDWIDTH_AGAIN: Duration = Duration::from_secs(1);
/// Longest time one part may keep the way for itself, whatever a policy says: no budget can stop an upload for good. A
/// limit under which a part of the configured size would take longer is raised, and seen to be.
pub const PART_TIME_MAX: Duration = Duration::from_secs(600);
/// Forgotten multipart uploads of one key that are looked at in one go.
pub const STRAYS_MAX: usize = 100;
/// Modules of policies the site knows: many more than slots, so that earlier ones are there to go back to. Beyond it the
/// oldest that nothing uses is forgotten, refused ones first. A default module comes even where none can be forgotten.
pub const MODULES_MAX: usize = 64;
/// Changes of the set of policies that are remembered, with all that sat in it.
pub const POLICY_HISTORY: usize = 64;
/// Faults remembered per slot of policies: the upper end of `policies.faults`, so that an ejection can count them.
pub const POLICY_FAULTS: u32 = 100;
/// Settings of one module in one slot.
pub const SETTINGS_MAX: usize = 32;
/// Bytes of the keys and texts of these settings together: they stand in every remembered change of the set.
pub const SETTINGS_BYTES: usize = 2 << 10;
/// Requests that wait until the same module was looked at.
pub const WAITERS_PER_MODULE: usize = 16;
/// Wait before the host of policies is asked again what it did not answer; it doubles each time in a row.
pub const POLICY_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const POLICY_RETRY_MAX: Duration = Duration::from_secs(600);

const _: () = assert!(RECHECK_MIN.as_millis() <= LIMITS_AGAIN.as_millis());
const _: () = assert!(LIMITS_AGAIN.as_millis() <= RECHECK_MAX.as_millis());
const _: () = assert!(SCAN_PATIENCE_MIN.as_millis() <= PATIENCE_MAX.as_millis());
const _: () = assert!(SCAN_START.as_millis() <= SCAN_PATIENCE_MIN.as_millis());
const _: () = assert!(DELAY_MIN.as_millis() <= DELAY_MAX.as_millis());
const _: () = assert!(WAY_DELAY_MIN.as_millis() <= WAY_DELAY_MAX.as_millis());
const _: () = assert!(POLICY_RETRY_MIN.as_millis() <= POLICY_RETRY_MAX.as_millis());
const _: () = assert!(SEND_AGAIN <= ASK_AGAIN);
const _: () = assert!(PART_BYTES_MIN <= PART_BYTES_MAX);
const _: () = assert!(PART_BYTES_MAX <= IN_FLIGHT_BYTES_MAX, "one part of any size must be possible");
const _: () = assert!(INSPECT_RETRY_MIN.as_nanos() <= INSPECT_RETRY_MAX.as_nanos());
const _: () = assert!(CALLS_PER_LINK >= 3, "slots are kept for get_state and for what changes the device");
const _: () = assert!(SYNC_RETRY_MIN.as_nanos() <= SYNC_RETRY_MAX.as_nanos());
const _: () = assert!(OBJECT_BYTES_MAX <= 5 << 40, "S3 takes at most 5 TiB");
