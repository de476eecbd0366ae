//! Inputs that were right once: frames and messages with a few bytes changed, cut out, repeated
//! or replaced by headers that promise too much.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;
use wavetank_core::Message;
use wavetank_core::record::{LogEntry, Snapshot};
use wavetank_core::{RaftMessage, TaskReport};
use wavetank_model::{
    Epoch, Incarnation, NodeId, NodeRole, Operation, Outcome, RequestId, Resources, SessionId,
    TaskId,
};
use wavetank_node::logs::{self, LogQuestion, Part, Written};
use wavetank_node::transport::AddressBook;
use wavetank_node::wire::{self, Frame, Granted, Hello, Join, Received};
use wavetank_port::{ErrorClass, OutputStream, RuntimeError, WallTime};

/// One of every shape of message that is easy to make; the rest differs from these in names only.
pub fn messages() -> Vec<Message> {
    let id = RequestId {
        client: NodeId::client(1),
        incarnation: Incarnation(3),
        sequence: 9,
    };
    vec![
        Message::Raft(Box::new(raft())),
        Message::Join {
            incarnation: Incarnation(1),
        },
        Message::Joined {
            incarnation: Incarnation(1),
            member: 4,
            members: BTreeMap::from([(1, NodeId::manager(1)), (4, NodeId::manager(2))]),
        },
        Message::Register {
            incarnation: Incarnation(2),
            resources: Resources::default(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        },
        Message::Redirect {
            leader: Some(NodeId::manager(3)),
        },
        Message::Heartbeat {
            session: SessionId(u64::MAX),
            sent_at: 1,
            assignments: (Epoch(1), wavetank_model::Revision(2)),
        },
        Message::Report {
            session: SessionId(1),
            reports: Vec::<TaskReport>::new(),
        },
        Message::ReportAcknowledged {
            session: SessionId(1),
            through: vec![(TaskId(1), 2), (TaskId(3), 4)],
        },
        Message::Request {
            id,
            operation: Operation::Put {
                key: "k".to_owned(),
                value: "v".repeat(100),
                claim: None,
            },
        },
        Message::Response {
            id,
            result: Ok(Outcome::Admitted {
                node: NodeId::agent(1),
            }),
        },
    ]
}

fn raft() -> RaftMessage {
    let entry = LogEntry {
        kind: 0,
        term: 1,
        index: 2,
        data: vec![1; 50],
        context: vec![2; 3],
    };
    RaftMessage {
        from: 1,
        to: 2,
        kind: 3,
        term: 4,
        log_term: 5,
        index: 6,
        entries: vec![entry.clone(), entry],
        commit: 7,
        commit_term: 8,
        snapshot: Some(Box::new(Snapshot {
            index: 1,
            term: 1,
            voters: vec![1, 2, 3],
            learners: vec![4],
            voters_outgoing: Vec::new(),
            learners_next: Vec::new(),
            auto_leave: false,
            data: vec![9; 200],
        })),
        request_snapshot: 0,
        reject: true,
        reject_hint: 9,
        context: vec![1, 2, 3],
        priority: -1,
    }
}

/// One of every frame, those with messages included.
pub fn frames() -> Vec<Frame> {
    let book: AddressBook = [(NodeId::manager(1), "127.0.0.1:7000".to_owned())]
        .into_iter()
        .collect();
    let bytes = Bytes::from_static(b"some bytes");
    let mut frames = vec![
        Frame::Hello(Hello {
            version: wire::VERSION,
            node: NodeId::agent(12),
            incarnation: Incarnation(5),
            advertise: Some("host:1".to_owned()),
            received: Some(Received {
                incarnation: Incarnation(2),
                through: 300,
            }),
        }),
        Frame::Addresses(book.clone()),
        Frame::Acknowledge { through: u64::MAX },
        Frame::Refused {
            why: "no".to_owned(),
        },
        Frame::Join(Join {
            secret: bytes.clone(),
            role: NodeRole::Manager,
            request: bytes.clone(),
        }),
        Frame::Granted(Granted {
            node: NodeId::manager(2),
            certificate: bytes.clone(),
            authority: bytes.clone(),
            authority_key: Some(bytes.clone()),
            addresses: book,
            by: Some(NodeId::manager(1)),
        }),
        Frame::Renew {
            request: bytes.clone(),
        },
        Frame::Renewed {
            certificate: bytes.clone(),
        },
        Frame::Ask {
            stream: 1,
            pieces: 8,
            question: bytes.clone(),
        },
        Frame::Piece {
            stream: 1,
            body: bytes,
        },
        Frame::Grant {
            stream: 1,
            pieces: 4,
        },
        Frame::Cancel { stream: 1 },
        Frame::End {
            stream: 1,
            error: Some("no".to_owned()),
        },
    ];
    frames.extend(messages().iter().map(|message| Frame::Message {
        sequence: 1,
        body: wire::encode_message(message),
    }));
    frames
}

/// The bytes that are mutated: frames without their length, and messages.
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |frame: &Frame| {
        let mut bytes = BytesMut::new();
        wire::encode(frame, &mut bytes);
        bytes[4..].to_vec()
    };
    let frames = frames();
    let messages = messages();
    let frames = frames.iter().map(frame);
    let messages = messages
        .iter()
        .map(|message| wire::encode_message(message).to_vec());
    frames.chain(messages).chain(logs()).collect()
}

/// What is asked and answered about logs.
fn logs() -> [Vec<u8>; 3] {
    let question = LogQuestion {
        instance: "task-17.2".parse().expect("an instance"),
        follow: true,
        tail: Some(100),
    };
    let written = Part::Written(Written {
        stream: OutputStream::Stderr,
        at: Some(WallTime(7)),
        bytes: Bytes::from_static(b"something"),
    });
    let failed = Part::Failed(RuntimeError::new(ErrorClass::NotFound, "nothing"));
    [
        logs::encode(&question).to_vec(),
        logs::encode(&written).to_vec(),
        logs::encode(&failed).to_vec(),
    ]
}

/// CBOR headers that promise a lot: bytes, text, array, map, tag, and endless ones.
const PROMISES: [&[u8]; 8] = [
    &[0x5b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0xc2, 0x5a, 0xff, 0xff, 0xff, 0xff],
    &[0x9f, 0x9f, 0x9f, 0x9f],
    &[0xbf, 0x60, 0x5f],
];

/// A seed, changed in one to eight ways.
pub fn mutated(seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds[below(rng, seeds.len())].clone();
    for _ in 0..=below(rng, 8) {
        mutate(&mut bytes, &PROMISES, rng);
    }
    bytes
}

/// Changes bytes in one way; among others, something that makes trouble takes the place of some.
pub fn mutate(bytes: &mut Vec<u8>, trouble: &[&[u8]], rng: &mut ChaCha8Rng) {
    let at = below(rng, bytes.len() + 1);
    let until = (at + below(rng, 9)).min(bytes.len());
    match below(rng, 6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
        1 if at < bytes.len() => bytes[at] = u8::try_from(below(rng, 256)).unwrap_or(0),
        2 => drop(bytes.drain(at..until)),
        3 => bytes.extend_from_within(at..until),
        4 => bytes.truncate(at),
        _ => {
            let trouble = trouble[below(rng, trouble.len())];
            bytes.splice(at..until, trouble.iter().copied());
        }
    }
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
    usize::try_from(rng.next_u64() % bound).unwrap_or(0)
}

/// Decodes bytes as everything that comes from the network.
pub fn decode(bytes: &[u8]) {
    if let Ok(Some(Frame::Message { body, .. })) = wire::decode(bytes) {
        let _ = wire::decode_message(&body);
    }
    let _ = wire::decode_message(bytes);
    let _ = logs::decode::<LogQuestion>(bytes);
    let _ = logs::decode::<Part>(bytes);
}
