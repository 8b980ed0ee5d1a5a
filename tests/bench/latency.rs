//! How long answers take: `latency ADDRESS RATE SECONDS NAME...`
//!
//! Asks for A of the names in turn, RATE times a second, whether answers come or not, and prints one line:
//! `asked answered p50 p99 p99.9 most`, the times in microseconds. A time begins just before a question is given to the
//! kernel and ends when the kernel has the reply: so it does not matter when this program, which shares its core, gets
//! to read it.

use std::{
    array, env,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

/// Replies that one system call reads.
const BATCH: usize = 64;

/// Octets kept of a reply: its identity is what counts.
const REPLY_OCTETS: usize = 64;

/// After the last question, for the last replies.
const GRACE: Duration = Duration::from_millis(500);

/// Octets that the kernel may queue for us, so that no reply is lost here.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (Some(address), Some(rate), Some(seconds), Some(names)) = (
        arguments.first().and_then(|address| address.parse().ok()),
        arguments.get(1).and_then(|rate| rate.parse().ok()),
        arguments.get(2).and_then(|seconds| seconds.parse().ok()),
        arguments.get(3..).filter(|names| !names.is_empty()),
    ) else {
        println!("latency ADDRESS RATE SECONDS NAME...: how long answers take; see tests/bench/scale");
        return Ok(());
    };
    let questions: Vec<_> = names.iter().map(|name| question(name)).collect();
    let mut asker = Asker::new(address)?;
    let asked = asker.ask(&questions, rate, Duration::from_secs_f64(seconds))?;
    report(asked, asker.times);
    Ok(())
}

fn question(name: &str) -> Vec<u8> {
    let mut octets = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        octets.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        octets.extend(label.bytes());
    }
    octets.extend([0, 0, 1, 0, 1]);
    octets
}

fn report(asked: usize, mut times: Vec<u64>) {
    times.sort_unstable();
    let part = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let micros = |share| part(share).map_or(f64::NAN, |&nanos| nanos as f64 / 1000.0);
    println!("{asked} {} {:.1} {:.1} {:.1} {:.1}", times.len(), micros(0.5), micros(0.99), micros(0.999), micros(1.0));
}

/// Asks, and remembers when.
struct Asker {
    socket: UdpSocket,
    headers: MultiHeaders<()>,
    /// When the question with this identity was sent, in nanoseconds of the unix time; 0: there is none.
    sent: Vec<u64>,
    times: Vec<u64>,
}

impl Asker {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let local: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(local)?;
        socket.connect(address)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_OCTETS)?;
        let headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(TimeSpec)));
        Ok(Self { socket, headers, sent: vec![0; 1 << 16], times: Vec::new() })
    }

    /// How many questions were asked.
    fn ask(&mut self, questions: &[Vec<u8>], rate: f64, time: Duration) -> io::Result<usize> {
        let start = Instant::now();
        let mut asked = 0;
        let due = |number: usize| Duration::from_secs_f64(number as f64 / rate);
        while start.elapsed() < time {
            while due(asked) <= start.elapsed() {
                self.send(&mut questions[asked % questions.len()].clone(), asked as u16)?;
                asked += 1;
            }
            self.receive()?;
            thread::sleep(due(asked).saturating_sub(start.elapsed()));
        }
        let end = Instant::now();
        while end.elapsed() < GRACE {
            self.receive()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(asked)
    }

    fn send(&mut self, question: &mut [u8], id: u16) -> io::Result<()> {
        question[..2].copy_from_slice(&id.to_be_bytes());
        self.sent[usize::from(id)] = unix_nanos();
        self.socket.send(question).map(|_| ())
    }

    /// Reads what is there.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffers = [[0; REPLY_OCTETS]; BATCH];
        loop {
            let mut arrivals = Vec::with_capacity(BATCH);
            {
                let mut free = buffers.iter_mut();
                let mut slices: [_; BATCH] =
                    array::from_fn(|_| [IoSliceMut::new(free.next().map_or(&mut [][..], |buffer| &mut buffer[..]))]);
                let fd = self.socket.as_raw_fd();
                match recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                    Ok(messages) => {
                        arrivals.extend(messages.map(|message| {
                            message.cmsgs().ok().and_then(|mut controls| {
                                controls.find_map(|control| match control {
                                    ControlMessageOwned::ScmTimestampns(at) => Some(nanos(at)),
                                    _ => None,
                                })
                            })
                        }));
                    }
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            for (arrival, buffer) in arrivals.into_iter().zip(&buffers) {
                let sent = &mut self.sent[usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))];
                if let (Some(at), 1..) = (arrival, *sent) {
                    self.times.push(at.saturating_sub(*sent));
                    *sent = 0;
                }
            }
        }
    }
}

fn nanos(time: TimeSpec) -> u64 {
    Duration::from(time).as_nanos() as u64
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
