//! What the platform and the configuration tell of the site, for policies. Kept in memory alone: nobody told is unknown.

use minicbor::decode::{Decoder, Error};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use crate::policy::question::{DISK_UNKNOWN, Known, LinkKind, Power};

/// What surrounds the site. The default is that nobody told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Surroundings {
    /// How the site reaches the cloud.
    #[n(0)]
    #[cbor(with = "link")]
    pub link: LinkKind,
    /// Whether bytes cost money.
    #[n(1)]
    #[cbor(with = "known")]
    pub metered: Known,
    /// What the site runs on.
    #[n(2)]
    #[cbor(with = "power")]
    pub power: Power,
    /// Minutes by which local time is ahead of UTC.
    #[n(3)]
    pub utc_offset_min: i16,
    /// Free space of the disk in thousandths; [`DISK_UNKNOWN`] if nobody measured it.
    #[n(4)]
    pub disk_free: u16,
}

impl Default for Surroundings {
    fn default() -> Self {
        Surroundings {
            link: LinkKind::Unknown,
            metered: Known::Unknown,
            power: Power::Unknown,
            utc_offset_min: 0,
            disk_free: DISK_UNKNOWN,
        }
    }
}

impl Surroundings {
    /// Whether a policy may judge otherwise now: anything but the free space of the disk is another, which changes all
    /// the time by itself.
    #[must_use]
    pub fn turned(&self, before: &Surroundings) -> bool {
        let disk_free = before.disk_free;
        Surroundings { disk_free, ..*self } != *before
    }
}

/// One number per word. The words themselves know no codec: the default guest is compiled from the same file.
macro_rules! words {
    ($name:ident, $word:ident, [$($n:literal => $variant:ident),+]) => {
        mod $name {
            use super::{Decoder, Encoder, Error, Write, $word};

            pub(super) fn encode<C, W: Write>(
                word: &$word,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                let n: u8 = match word {
                    $($word::$variant => $n,)+
                };
                e.u8(n)?.ok()
            }

            pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<$word, Error> {
                match d.u8()? {
                    $($n => Ok($word::$variant),)+
                    _ => Err(Error::message(concat!("no such ", stringify!($name)))),
                }
            }
        }
    };
}

words!(link, LinkKind, [
    0 => Unknown, 1 => None, 2 => Ethernet, 3 => Wifi, 4 => Cellular, 5 => Satellite, 6 => Other
]);
words!(known, Known, [0 => Unknown, 1 => No, 2 => Yes]);
words!(power, Power, [0 => Unknown, 1 => Mains, 2 => Battery, 3 => BatteryLow]);
