//! What travels between nodes: frames in CBOR, each behind its length in four bytes, big-endian.
//!
//! CBOR names its fields, so nodes of different versions understand each other as far as they
//! can: unknown fields are passed over, a frame of an unknown kind is none ([`decode`] answers
//! nothing), and a [`Message`] travels as bytes within its frame, so that one which cannot be
//! read is still counted and acknowledged.
//!
//! Nothing here trusts a length: a header that promises more than follows reserves next to
//! nothing, and the length of a frame is checked before anything is read.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::value::Error as NoValue;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, forward_to_deserialize_any};
use tokio_util::codec::LengthDelimitedCodec;
use wavetank_core::Message;
use wavetank_model::{Incarnation, NodeId, NodeRole};

use crate::transport::AddressBook;

/// The version of this vocabulary. It grows when an old node could not make sense of a new one.
pub const VERSION: u32 = 1;

/// The first frame of a connection between two nodes, in both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest vocabulary that the sender speaks.
    pub version: u32,
    /// Who it is; must be whom its certificate names.
    pub node: NodeId,
    /// Which of its boots.
    pub incarnation: Incarnation,
    /// Where it can be dialled.
    #[serde(default)]
    pub advertise: Option<String>,
    /// What it has had of the receiver's messages; nothing if it never heard of the receiver.
    #[serde(default)]
    pub received: Option<Received>,
}

/// How far the messages of one boot have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Which boot of their sender.
    pub incarnation: Incarnation,
    /// The last one's number; zero if none has come.
    pub through: u64,
}

/// A node without a certificate asks for one.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The secret of its token.
    pub secret: Bytes,
    /// What it wants to be; the token must be for that.
    pub role: NodeRole,
    /// A certificate request (PKCS #10) signed by its own key.
    pub request: Bytes,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Join({})", self.role.name())
    }
}

/// The answer to a [`Join`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// Who the joiner is from now on.
    pub node: NodeId,
    /// Its certificate.
    pub certificate: Bytes,
    /// The authority's certificate.
    pub authority: Bytes,
    /// The authority's key, for a manager.
    #[serde(default)]
    pub authority_key: Option<Bytes>,
    /// Where the managers are.
    #[serde(default)]
    pub addresses: AddressBook,
    /// Which manager grants it: where that is, the joiner knows.
    #[serde(default)]
    pub by: Option<NodeId>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted({})", self.node)
    }
}

/// Whatever one node says to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// Who I am.
    Hello(Hello),
    /// Where managers are, as far as I know.
    Addresses(AddressBook),
    /// A message.
    Message {
        /// Grows with every message to this peer within the sender's boot.
        sequence: u64,
        /// The [`Message`], in CBOR.
        body: Bytes,
    },
    /// Every message up to this one has arrived.
    Acknowledge {
        /// The last one's number; zero if none has.
        through: u64,
    },
    /// I will not talk to you; the connection ends.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// Let me into the cluster.
    Join(Join),
    /// You are in.
    Granted(Granted),
    /// A node asks for its next certificate.
    Renew {
        /// A certificate request (PKCS #10) signed by its next key.
        request: Bytes,
    },
    /// The next certificate.
    Renewed {
        /// For the key that signed the request.
        certificate: Bytes,
    },
    /// Begins a stream: answer this, piece by piece.
    Ask {
        /// Counted by whoever asks, within the connection.
        stream: u64,
        /// So many pieces may come.
        pieces: u32,
        /// What is asked.
        question: Bytes,
    },
    /// A piece of an answer.
    Piece {
        /// Of which stream.
        stream: u64,
        /// What it says.
        body: Bytes,
    },
    /// More pieces of an answer may come.
    Grant {
        /// Of which stream.
        stream: u64,
        /// So many more.
        pieces: u32,
    },
    /// Nobody wants more of an answer.
    Cancel {
        /// Of which stream.
        stream: u64,
    },
    /// An answer ends.
    End {
        /// Of which stream.
        stream: u64,
        /// Why, if there should be more of it.
        error: Option<String>,
    },
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame: {0}")]
pub struct FrameError(String);

/// A message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// The kind that it claims to be, if this version knows it.
    pub kind: &'static str,
    /// What is wrong.
    pub error: String,
}

/// Splits bytes into frames no longer than `frame_bytes_max`.
pub fn codec(frame_bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_type::<u32>()
        .max_frame_length(frame_bytes_max)
        .new_codec()
}

/// Appends a frame and its length.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32(0);
    ciborium::into_writer(frame, out.writer()).expect("frames always serialize");
    let length = u32::try_from(out.len() - start - size_of::<u32>()).expect("frames are limited");
    out[start..start + size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
}

/// Reads a frame without its length; nothing if its kind is unknown here.
pub fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    match read(bytes) {
        Ok(frame) => Ok(Some(frame)),
        Err(_) if claims::<Frame>(bytes) == Claim::Unknown => Ok(None),
        Err(error) => Err(FrameError(error)),
    }
}

/// A message as a frame carries it.
pub fn encode_message(message: &Message) -> Bytes {
    let mut out = BytesMut::new().writer();
    ciborium::into_writer(message, &mut out).expect("messages always serialize");
    out.into_inner().freeze()
}

/// Reads a message back.
pub fn decode_message(bytes: &[u8]) -> Result<Message, Undecodable> {
    read(bytes).map_err(|error| Undecodable {
        kind: match claims::<Message>(bytes) {
            Claim::Known(kind) => kind,
            Claim::Unknown | Claim::Nothing => "unknown",
        },
        error,
    })
}

/// One value and nothing after it.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).map_err(|error| error.to_string())?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("{} bytes too many", rest.len()))
    }
}

/// What a value says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// One of the kinds of the enum.
    Known(&'static str),
    /// A kind that the enum does not have.
    Unknown,
    /// It is not shaped like an enum.
    Nothing,
}

fn claims<T: DeserializeOwned>(bytes: &[u8]) -> Claim {
    let Ok(Kind(claimed)) = ciborium::from_reader(bytes) else {
        return Claim::Nothing;
    };
    let known = kinds::<T>().iter().find(|kind| **kind == claimed);
    known.map_or(Claim::Unknown, |kind| Claim::Known(kind))
}

/// The key of a map's first entry, which is how an enum's value begins.
struct Kind(String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstKey;
        impl<'de> Visitor<'de> for FirstKey {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of one entry")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                match map.next_entry::<String, IgnoredAny>()? {
                    Some((key, IgnoredAny)) => Ok(Kind(key)),
                    None => Err(A::Error::custom("an empty map")),
                }
            }
        }
        deserializer.deserialize_map(FirstKey)
    }
}

/// The names of an enum's variants, asked of the code that serde derives for it, so that there is
/// no list to keep.
fn kinds<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Asker<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Asker<'_> {
        type Error = NoValue;

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, NoValue> {
            *self.0 = variants;
            Err(NoValue::custom("only asking"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NoValue> {
            Err(NoValue::custom("not an enum"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }
    let mut kinds: &'static [&'static str] = &[];
    // It always fails: there is no value.
    let _ = T::deserialize(Asker(&mut kinds));
    kinds
}
