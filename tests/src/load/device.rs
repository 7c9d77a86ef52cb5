//! A device: publishes numbered messages over MQTT 3.1.1, and knows exactly what was acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use mqttbytes::QoS;
use mqttbytes::v4::{self, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Nothing acknowledged for this long while connected: the server has stalled.
const STALL: Duration = Duration::from_secs(60);
const RECONNECT: Duration = Duration::from_millis(50);
const MAX_PACKET_BYTES: usize = 1 << 20;

/// The quality of service that a device publishes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// QoS 1: a message whose PUBACK got lost is sent again, and is then a message of its own to the server.
    AtLeastOnce,
    /// QoS 2: with a kept session, exactly once from the device to the edge's queue.
    ExactlyOnce,
}

/// Makes the payload of message `number`. It has to start with the number in decimal, or with `{"n":` and the number.
pub type Payload = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// What a device is told to do.
#[derive(Clone)]
pub struct Device {
    pub client_id: String,
    pub topic: String,
    pub quality: Quality,
    /// The pause between two messages.
    pub interval: Duration,
    /// Messages in flight at most.
    pub window: usize,
    pub payload: Payload,
}

/// What a device did. After a clean end everything published was also acknowledged.
#[derive(Clone, Debug, Default)]
pub struct DeviceReport {
    pub client_id: String,
    pub topic: String,
    /// Messages 0..published were handed to the connection at least once.
    pub published: u64,
    /// Of these, how many the server has taken over (PUBACK, PUBREC).
    pub acknowledged: u64,
    /// PUBLISH packets sent again with DUP after a reconnect.
    pub sent_again: u64,
    pub connections: u64,
    /// Reconnects to a server that had forgotten the kept session.
    pub sessions_lost: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBLISH was sent; PUBACK or PUBREC is awaited.
    Published,
    /// PUBREL was sent; PUBCOMP is awaited.
    Released,
}

struct InFlight {
    packet_id: u16,
    number: u64,
    payload: Bytes,
    stage: Stage,
}

/// Whether the devices go on publishing or only finish what is in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Publish,
    Finish,
}

struct Running {
    device: Device,
    address: String,
    in_flight: VecDeque<InFlight>,
    next_number: u64,
    next_packet_id: u16,
    had_session: bool,
    report: DeviceReport,
    acknowledged: Arc<AtomicU64>,
}

impl Running {
    /// Until told to finish and nothing is in flight any more.
    async fn run(mut self, mut order: watch::Receiver<Order>) -> anyhow::Result<DeviceReport> {
        loop {
            match self.connection(&mut order).await {
                Ok(()) => return Ok(self.report),
                // A killed server: reset, refused, closed. Anything else is the server's mistake.
                Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
                    tokio::time::sleep(RECONNECT).await;
                }
                Err(error) => {
                    return Err(error.context(format!("device {}", self.device.client_id)));
                }
            }
        }
    }

    async fn connection(&mut self, order: &mut watch::Receiver<Order>) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let mut received = BytesMut::new();
        let mut out = BytesMut::new();
        self.connect(&mut stream, &mut received).await?;
        self.send_again(&mut out)?;
        let mut ticks = tokio::time::interval(self.device.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_progress = tokio::time::Instant::now();
        loop {
            if !out.is_empty() {
                stream.write_all(&out).await?;
                out.clear();
            }
            let publishing = *order.borrow_and_update() == Order::Publish;
            if !publishing && self.in_flight.is_empty() {
                v4::Disconnect.write(&mut out).map_err(|error| anyhow::anyhow!("{error:?}"))?;
                // All is acknowledged: a server that dies during the goodbye changes nothing.
                let _ = stream.write_all(&out).await;
                return Ok(());
            }
            if self.in_flight.is_empty() {
                last_progress = tokio::time::Instant::now();
            }
            let room = publishing && self.in_flight.len() < self.device.window;
            tokio::select! {
                read = stream.read_buf(&mut received) => {
                    if read? == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
                    }
                    while let Some(packet) = next_packet(&mut received)? {
                        self.receive(&packet, &mut out)?;
                    }
                    last_progress = tokio::time::Instant::now();
                }
                _ = ticks.tick(), if room => self.publish(&mut out)?,
                changed = order.changed() => changed.context("the fleet is gone")?,
                () = tokio::time::sleep_until(last_progress + STALL), if !self.in_flight.is_empty() => {
                    bail!("nothing was acknowledged for {STALL:?}, {} in flight", self.in_flight.len());
                }
            }
        }
    }

    async fn connect(
        &mut self,
        stream: &mut TcpStream,
        received: &mut BytesMut,
    ) -> anyhow::Result<()> {
        let mut connect = v4::Connect::new(self.device.client_id.clone());
        connect.clean_session = false;
        connect.keep_alive = 0;
        let mut out = BytesMut::new();
        connect.write(&mut out).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        stream.write_all(&out).await?;
        let answer = tokio::time::timeout(STALL, async {
            loop {
                if let Some(packet) = next_packet(received)? {
                    return anyhow::Ok(packet);
                }
                if stream.read_buf(received).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
                }
            }
        });
        match answer.await.context("no CONNACK")?? {
            Packet::ConnAck(answer) => {
                ensure!(
                    answer.code == v4::ConnectReturnCode::Success,
                    "refused: {:?}",
                    answer.code
                );
                if self.had_session && !answer.session_present {
                    self.report.sessions_lost += 1;
                }
                self.had_session = true;
                self.report.connections += 1;
                Ok(())
            }
            other => bail!("expected CONNACK, got {other:?}"),
        }
    }

    /// MQTT 3.1.1 section 4.4: everything unacknowledged again, in the original order.
    fn send_again(&mut self, out: &mut BytesMut) -> anyhow::Result<()> {
        for message in &self.in_flight {
            match message.stage {
                Stage::Published => {
                    write_publish(&self.device, message, true, out)?;
                    self.report.sent_again += 1;
                }
                Stage::Released => write_release(message.packet_id, out)?,
            }
        }
        Ok(())
    }

    fn publish(&mut self, out: &mut BytesMut) -> anyhow::Result<()> {
        let number = self.next_number;
        let payload = (self.device.payload)(number).into();
        let message =
            InFlight { packet_id: self.free_packet_id(), number, payload, stage: Stage::Published };
        write_publish(&self.device, &message, false, out)?;
        self.in_flight.push_back(message);
        self.next_number += 1;
        self.report.published = self.next_number;
        Ok(())
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            if self.in_flight.iter().all(|message| message.packet_id != self.next_packet_id) {
                return self.next_packet_id;
            }
        }
    }

    fn receive(&mut self, packet: &Packet, out: &mut BytesMut) -> anyhow::Result<()> {
        match packet {
            Packet::PubAck(ack) => {
                ensure!(self.device.quality == Quality::AtLeastOnce, "PUBACK for QoS 2");
                self.finish(ack.pkid, Stage::Published)?;
                self.taken_over();
            }
            Packet::PubRec(record) => {
                ensure!(self.device.quality == Quality::ExactlyOnce, "PUBREC for QoS 1");
                let known =
                    self.in_flight.iter_mut().find(|message| message.packet_id == record.pkid);
                let message =
                    known.with_context(|| format!("PUBREC for the unknown id {}", record.pkid))?;
                if message.stage == Stage::Published {
                    message.stage = Stage::Released;
                    self.taken_over();
                }
                write_release(record.pkid, out)?;
            }
            Packet::PubComp(complete) => self.finish(complete.pkid, Stage::Released)?,
            other => bail!("unexpected {other:?}"),
        }
        Ok(())
    }

    fn taken_over(&mut self) {
        self.report.acknowledged += 1;
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&mut self, packet_id: u16, stage: Stage) -> anyhow::Result<()> {
        let found = self.in_flight.iter().position(|message| message.packet_id == packet_id);
        let index =
            found.with_context(|| format!("an acknowledgement for the unknown id {packet_id}"))?;
        ensure!(
            self.in_flight[index].stage == stage,
            "an acknowledgement out of turn for id {packet_id}"
        );
        let message = self.in_flight.remove(index).context("the index was just found")?;
        ensure!(message.number < self.next_number, "a number that was never used");
        Ok(())
    }
}

fn next_packet(received: &mut BytesMut) -> anyhow::Result<Option<Packet>> {
    match v4::read(received, MAX_PACKET_BYTES) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => bail!("a malformed packet from the server: {error:?}"),
    }
}

fn write_publish(
    device: &Device,
    message: &InFlight,
    dup: bool,
    out: &mut BytesMut,
) -> anyhow::Result<()> {
    let quality = match device.quality {
        Quality::AtLeastOnce => QoS::AtLeastOnce,
        Quality::ExactlyOnce => QoS::ExactlyOnce,
    };
    let mut publish =
        v4::Publish::from_bytes(device.topic.clone(), quality, message.payload.clone());
    publish.pkid = message.packet_id;
    publish.dup = dup;
    publish.write(out).map(drop).map_err(|error| anyhow::anyhow!("{error:?}"))
}

fn write_release(packet_id: u16, out: &mut BytesMut) -> anyhow::Result<()> {
    v4::PubRel::new(packet_id).write(out).map(drop).map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// Devices that run together.
pub struct Fleet {
    tasks: JoinSet<anyhow::Result<DeviceReport>>,
    order: watch::Sender<Order>,
    acknowledged: Arc<AtomicU64>,
}

impl Fleet {
    /// Starts them against the edge at `address`; they reconnect there for as long as it takes.
    #[must_use]
    pub fn start(address: &str, devices: &[Device]) -> Self {
        let (order, receiver) = watch::channel(Order::Publish);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for device in devices {
            let running = Running {
                report: DeviceReport {
                    client_id: device.client_id.clone(),
                    topic: device.topic.clone(),
                    ..DeviceReport::default()
                },
                device: device.clone(),
                address: address.to_owned(),
                in_flight: VecDeque::new(),
                next_number: 0,
                next_packet_id: 0,
                had_session: false,
                acknowledged: Arc::clone(&acknowledged),
            };
            tasks.spawn(running.run(receiver.clone()));
        }
        Self { tasks, order, acknowledged }
    }

    /// Messages that the server has taken over so far, of all devices.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// An error if a device has given up.
    ///
    /// # Errors
    /// The device's own.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                let report = ended??;
                bail!("device {} ended before it was told to", report.client_id)
            }
        }
    }

    /// No new messages; waits until all that is in flight is acknowledged to the end.
    ///
    /// # Errors
    /// A device's own, or when they do not finish `within` this time.
    pub async fn finish(mut self, within: Duration) -> anyhow::Result<Vec<DeviceReport>> {
        self.order.send_replace(Order::Finish);
        let all = async {
            let mut reports = Vec::new();
            while let Some(ended) = self.tasks.join_next().await {
                reports.push(ended??);
            }
            anyhow::Ok(reports)
        };
        let mut reports =
            tokio::time::timeout(within, all).await.context("devices did not finish")??;
        reports.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Ok(reports)
    }
}
