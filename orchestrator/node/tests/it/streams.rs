//! What managers ask and agents answer piece by piece, beside their messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use wavetank_model::NodeId;
use wavetank_node::transport::{
    Answer, PIECE_BYTES_MAX, STREAMS_MAX, StreamError, StreamReader, StreamWriter,
};
use wavetank_node::wire::Frame;

use crate::raw::Raw;
use crate::support::{Cluster, Node, eventually};

const MANAGER: NodeId = NodeId::manager(1);
const AGENT: NodeId = NodeId::agent(1);

/// Answers with numbered pieces: as many as the question says, or endlessly many.
#[derive(Default)]
struct Numbers {
    written: AtomicU64,
    under_way: AtomicU64,
}

struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Answer for Numbers {
    async fn answer(&self, question: Bytes, writer: StreamWriter) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.under_way);
        let count = match &*question {
            b"endless" => u64::MAX,
            b"break" => return drop(writer),
            b"refuse" => return writer.finish(Some("not today".to_owned())),
            count => std::str::from_utf8(count).unwrap().parse().unwrap(),
        };
        for number in 0..count {
            let mut piece = vec![0; PIECE_BYTES_MAX];
            piece[..8].copy_from_slice(&number.to_be_bytes());
            if writer.write(piece.into()).await.is_err() {
                return;
            }
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        writer.finish(None);
    }
}

/// A manager and an agent that know each other, and what the agent answers with.
async fn pair(cluster: &Cluster) -> (Node, Node, Arc<Numbers>) {
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let agent = cluster.config(AGENT, &[manager.at()]);
    let agent = cluster.start(agent).await;
    let numbers = Arc::new(Numbers::default());
    agent.transport.answer_with(numbers.clone());
    agent.send(MANAGER, 1);
    assert_eq!(manager.number().await, 1);
    (manager, agent, numbers)
}

fn ask(manager: &Node, question: &'static str) -> Result<StreamReader, StreamError> {
    manager
        .transport
        .ask(AGENT, Bytes::from_static(question.as_bytes()))
}

/// The next piece's number; nothing at the end.
async fn next(reader: &mut StreamReader) -> Result<Option<u64>, StreamError> {
    let next = tokio::time::timeout(Duration::from_secs(60), reader.next());
    let piece = next.await.expect("in time")?;
    Ok(piece.map(|piece| u64::from_be_bytes(piece[..8].try_into().unwrap())))
}

#[tokio::test]
async fn an_answer_arrives_whole_and_in_order_beside_others() {
    let cluster = Cluster::new();
    let (manager, _agent, numbers) = pair(&cluster).await;
    let mut first = ask(&manager, "300").unwrap();
    let mut second = ask(&manager, "200").unwrap();
    for number in 0..300 {
        assert_eq!(next(&mut first).await, Ok(Some(number)));
        if number < 200 {
            assert_eq!(next(&mut second).await, Ok(Some(number)));
        }
    }
    assert_eq!(next(&mut first).await, Ok(None));
    assert_eq!(next(&mut first).await, Ok(None), "and it stays over");
    assert_eq!(next(&mut second).await, Ok(None));
    assert_eq!(numbers.written.load(Ordering::Relaxed), 500);
    cluster.machine.assert_no_panics();
}

#[tokio::test]
async fn a_reader_that_is_slow_makes_the_writer_wait_and_nobody_else() {
    let cluster = Cluster::new();
    let (mut manager, mut agent, numbers) = pair(&cluster).await;
    let mut slow = ask(&manager, "endless").unwrap();
    let mut quick = ask(&manager, "endless").unwrap();
    for number in 0..500 {
        assert_eq!(next(&mut quick).await, Ok(Some(number)));
        agent.send(MANAGER, number);
        assert_eq!(manager.number().await, number);
        manager.send(AGENT, number);
        assert_eq!(agent.number().await, number);
    }
    // What the quick one got, and what may be on its way to each of them.
    let written = numbers.written.load(Ordering::Relaxed);
    assert!(written <= 500 + 2 * 12, "{written} pieces");
    assert_eq!(next(&mut slow).await, Ok(Some(0)));
    assert_eq!(numbers.under_way.load(Ordering::Relaxed), 2);
    drop((slow, quick));
    eventually("whoever answers is told to stop", || {
        numbers.under_way.load(Ordering::Relaxed) == 0
    })
    .await;
    cluster.machine.assert_no_panics();
}

#[tokio::test]
async fn an_answer_that_cannot_be_given_says_why() {
    let cluster = Cluster::new();
    let (mut manager, agent, _) = pair(&cluster).await;
    let error = |why: &str| Err(StreamError::Refused(why.to_owned()));
    let mut reader = ask(&manager, "refuse").unwrap();
    assert_eq!(next(&mut reader).await, error("not today"));
    let mut reader = ask(&manager, "break").unwrap();
    assert_eq!(next(&mut reader).await, error("the answer broke off"));
    let long = Bytes::from(vec![0; 100_000]);
    let mut reader = manager.transport.ask(AGENT, long).unwrap();
    let nothing = "this node answers no such request";
    assert_eq!(next(&mut reader).await, error(nothing));
    // Agents have nothing to ask.
    let mut reader = agent.transport.ask(MANAGER, Bytes::new()).unwrap();
    assert_eq!(next(&mut reader).await, error(nothing));
    let nobody = manager.transport.ask(NodeId::agent(9), Bytes::new());
    assert_eq!(nobody.err(), Some(StreamError::NotConnected));
    agent.send(MANAGER, 2);
    assert_eq!(manager.number().await, 2);
}

#[tokio::test]
async fn there_are_only_so_many_at_once() {
    let cluster = Cluster::new();
    let (manager, _agent, numbers) = pair(&cluster).await;
    let mut readers: Vec<_> = (0..STREAMS_MAX)
        .map(|_| ask(&manager, "endless").unwrap())
        .collect();
    assert_eq!(ask(&manager, "1").err(), Some(StreamError::Busy));
    for _ in 0..100 {
        readers.pop();
        readers.push(ask(&manager, "endless").unwrap());
    }
    for reader in &mut readers {
        assert_eq!(next(reader).await, Ok(Some(0)));
    }
    let under_way = numbers.under_way.load(Ordering::Relaxed);
    assert_eq!(under_way, STREAMS_MAX as u64);
}

#[tokio::test]
async fn an_answer_ends_with_its_connection() {
    let cluster = Cluster::new();
    let (manager, agent, _) = pair(&cluster).await;
    let mut reader = ask(&manager, "endless").unwrap();
    assert_eq!(next(&mut reader).await, Ok(Some(0)));
    drop(agent);
    let broken = async {
        loop {
            if let Err(error) = next(&mut reader).await {
                return error;
            }
        }
    };
    assert_eq!(broken.await, StreamError::Broken);
    eventually("the connection is gone", || {
        ask(&manager, "1").err() == Some(StreamError::NotConnected)
    })
    .await;
}

/// An agent with a certificate that keeps to no agreement.
#[tokio::test]
async fn an_agent_that_sends_more_than_was_granted_is_not_listened_to() {
    let cluster = Cluster::new();
    let mut manager = cluster.start(cluster.config(MANAGER, &[])).await;
    let identity = cluster.identity(AGENT);
    let mut raw = Raw::with(&identity, manager.at()).await.expect("TLS");
    raw.greet(AGENT, 1).await.expect("an answer");
    eventually("it is connected", || {
        manager.transport.connected() == [AGENT]
    })
    .await;
    for body in [vec![0; 100], vec![0; PIECE_BYTES_MAX + 1]] {
        let mut reader = ask(&manager, "1").unwrap();
        let (stream, pieces) = loop {
            if let Frame::Ask { stream, pieces, .. } = raw.receive().await.unwrap() {
                break (stream, pieces);
            }
        };
        for _ in 0..10_000 {
            let body = Bytes::from(body.clone());
            raw.send(&Frame::Piece { stream, body }).await.unwrap();
        }
        let mut read = 0;
        let broken = loop {
            match reader.next().await {
                Ok(Some(_)) => read += 1,
                other => break other,
            }
        };
        assert_eq!(broken, Err(StreamError::Broken));
        assert!(read <= pieces, "{read} of {pieces}");
        loop {
            if let Frame::Cancel { stream: of } = raw.receive().await.unwrap() {
                assert_eq!(of, stream);
                break;
            }
        }
    }
    // About streams that nobody asked for there is nothing to say.
    for stream in 0..1000 {
        let body = Bytes::new();
        raw.send(&Frame::Piece { stream, body }).await.unwrap();
        raw.send(&Frame::End {
            stream,
            error: None,
        })
        .await
        .unwrap();
        let pieces = u32::MAX;
        raw.send(&Frame::Grant { stream, pieces }).await.unwrap();
        raw.send(&Frame::Cancel { stream }).await.unwrap();
    }
    let body = wavetank_node::wire::encode_message(&crate::support::numbered(7));
    let message = Frame::Message { sequence: 1, body };
    raw.send(&message).await.unwrap();
    assert_eq!(manager.number().await, 7);
    cluster.machine.assert_no_panics();
}
