//! What a simulated node answers, and how the answer is delivered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Path, Request, listing::Placement};

/// Requests that are kept for each node: enough for a test, and few enough for a demo that runs for days.
const LOG_MAX: usize = 4096;

/// What a node answers.
#[derive(Clone, Debug, Default)]
pub enum Content {
    /// What Alternator answers: the nodes that it sees, `healthy`, or the id of its cluster.
    #[default]
    Usual,
    /// A list of only the node itself; other paths as usual.
    Isolated,
    /// These entries as JSON strings, whether they are addresses or not.
    Listing(Vec<String>),
    /// This response.
    Reply(HttpReply),
}

/// How an answer is delivered.
#[derive(Clone, Debug, Default)]
pub enum Delivery {
    /// At once and whole.
    #[default]
    Prompt,
    /// Whole, after a delay.
    Delayed(Duration),
    /// Never: the request is read, the connection stays open.
    Hang,
    /// The head at once, then one octet of the body each time.
    Drip(Duration),
    /// One octet each time, from the status line on.
    Trickle(Duration),
    /// Half of the body, then a reset (RST).
    ResetMidBody,
    /// The whole body under a Content-Length of ten more, then an orderly close.
    Short,
    /// In chunks of a few octets (`Transfer-Encoding: chunked`).
    Chunked,
    /// A list that never ends, as fast as it is read.
    Endless,
    /// Interim replies (`100 Continue`) that never end, as fast as they are read.
    EndlessContinue,
    /// A head that never ends, as fast as it is read.
    EndlessHead,
    /// A list that never ends, in chunks of one octet, as fast as they are read.
    EndlessChunks,
    /// These octets in place of an HTTP answer, then an orderly close.
    Verbatim(Vec<u8>),
    /// An orderly close in place of an answer.
    Close,
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct HttpReply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl HttpReply {
    /// Status 200 with this body, and no header but its length.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    /// This status and an empty body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Declares the body as JSON.
    #[must_use]
    pub(super) fn json(self) -> Self {
        self.header("Content-Type", "application/json")
    }
}

/// The state of one node. `Running` is its task.
#[derive(Debug)]
pub(super) struct NodeRecord<Running> {
    /// `None`: stopped.
    pub(super) running: Option<Running>,
    pub(super) placement: Placement,
    pub(super) content: BTreeMap<Path, Content>,
    pub(super) delivery: BTreeMap<Path, Delivery>,
    pub(super) log: VecDeque<Request>,
    pub(super) counts: BTreeMap<Path, u64>,
    pub(super) connections: u64,
}

impl<Running> Default for NodeRecord<Running> {
    fn default() -> Self {
        Self {
            running: None,
            placement: Placement::default(),
            content: BTreeMap::new(),
            delivery: BTreeMap::new(),
            log: VecDeque::new(),
            counts: BTreeMap::new(),
            connections: 0,
        }
    }
}

impl<Running> NodeRecord<Running> {
    /// Records a request, and returns what to answer and how to deliver it.
    pub(super) fn note(&mut self, request: Request) -> (Content, Delivery) {
        let path = request.path;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(request);
        *self.counts.entry(path).or_default() += 1;
        let content = self.content.get(&path).cloned().unwrap_or_default();
        (content, self.delivery.get(&path).cloned().unwrap_or_default())
    }
}
