//! A client that shows every packet, and can break off, send rubbish and leave answers out.

use std::net::SocketAddr;

use bytes::BytesMut;
use robustmq_common::mqtt::codec;
use robustmq_common::mqtt::packet::{
    Ack, ConnAck, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeProperties,
    SubscriptionOptions, TopicFilter, TopicName,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::PATIENCE;

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Client {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    version: ProtocolVersion,
    next_id: u16,
}

pub(super) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A CONNECT that keeps its session.
pub(super) fn kept(client: &str, version: ProtocolVersion) -> Connect {
    let expiry = (version == ProtocolVersion::V5).then_some(3600);
    Connect {
        version,
        clean_start: false,
        keep_alive_secs: 0,
        client_id: client.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_interval_secs: expiry,
            ..ConnectProperties::default()
        },
    }
}

/// A CONNECT whose session ends with the connection.
pub(super) fn clean(client: &str, version: ProtocolVersion) -> Connect {
    let properties = ConnectProperties::default();
    Connect { clean_start: true, properties, ..kept(client, version) }
}

pub(super) fn publish(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id: PacketId::new(packet_id),
        properties: PublishProperties::default(),
        payload: payload.to_owned().into(),
    }
}

impl Client {
    pub(super) async fn open(address: SocketAddr, version: ProtocolVersion) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), version)
    }

    pub(super) fn over(stream: impl Stream + 'static, version: ProtocolVersion) -> Self {
        Self { stream: Box::new(stream), buffer: BytesMut::new(), version, next_id: 40_000 }
    }

    pub(super) async fn connect(address: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        let mut client = Self::open(address, connect.version).await;
        let answer = client.introduce(connect).await;
        (client, answer)
    }

    /// CONNECT, and waits for the answer.
    pub(super) async fn introduce(&mut self, connect: Connect) -> ConnAck {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.recv().await {
            Packet::ConnAck(answer) => *answer,
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    pub(super) async fn v5(address: SocketAddr, name: &str) -> Self {
        Self::connect(address, clean(name, ProtocolVersion::V5)).await.0
    }

    pub(super) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        codec::encode(&packet, self.version, &mut bytes).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` when the gateway has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        let read = async {
            loop {
                let decoded = codec::decode(&mut self.buffer, Some(self.version), 10_000_000);
                if let Some(packet) = decoded.unwrap() {
                    return Some(packet);
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }

    pub(super) async fn recv(&mut self) -> Packet {
        self.next().await.unwrap()
    }

    pub(super) async fn recv_publish(&mut self) -> Publish {
        match self.recv().await {
            Packet::Publish(publish) => *publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// Nothing was on its way: what was sent before the answer to a ping would have come before it.
    pub(super) async fn expect_silence(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.recv().await, Packet::PingResp);
    }

    /// The connection ends, or goes on with what is not MQTT (a TLS alert), without a packet.
    pub(super) async fn expect_no_packet(&mut self) {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        // A reset is an end too.
        let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
        let decoded = codec::decode(&mut rest.as_slice().into(), Some(self.version), 10_000_000);
        assert!(!matches!(decoded, Ok(Some(_))), "{decoded:?}");
    }

    /// What was sent last is not acknowledged: the connection is closed, or lives on and says nothing.
    pub(super) async fn expect_no_acknowledgement(&mut self) {
        let mut ping = BytesMut::new();
        codec::encode(&Packet::PingReq, self.version, &mut ping).unwrap();
        // The gateway may have closed the connection already.
        let _ = self.stream.write_all(&ping).await;
        let answer = self.next().await;
        assert!(matches!(answer, None | Some(Packet::PingResp)), "{answer:?}");
    }

    pub(super) async fn expect_closed(&mut self) {
        while let Some(packet) = self.next().await {
            assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?} instead of the end");
        }
    }

    pub(super) async fn subscribe(&mut self, filter: &str, maximum_qos: QoS) -> ReasonCode {
        self.next_id += 1;
        let options = SubscriptionOptions { maximum_qos, ..SubscriptionOptions::default() };
        let subscribe = Subscribe {
            packet_id: id(self.next_id),
            properties: SubscribeProperties::default(),
            filters: vec![(TopicFilter::new(filter).unwrap(), options)],
        };
        self.send(Packet::Subscribe(subscribe)).await;
        match self.recv().await {
            Packet::SubAck(answer) => answer.reasons[0],
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Publishes and goes through the whole exchange; the reason code of PUBACK or PUBREC.
    pub(super) async fn publish(&mut self, publish: Publish) -> ReasonCode {
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.send(Packet::Publish(Box::new(publish))).await;
        match qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => match self.recv().await {
                Packet::PubAck(ack) if Some(ack.packet_id) == packet_id => ack.reason,
                other => panic!("{other:?} instead of PUBACK"),
            },
            QoS::ExactlyOnce => {
                let reason = match self.recv().await {
                    Packet::PubRec(ack) if Some(ack.packet_id) == packet_id => ack.reason,
                    other => panic!("{other:?} instead of PUBREC"),
                };
                if (reason as u8) < 0x80 {
                    self.release(packet_id.unwrap()).await;
                }
                reason
            }
        }
    }

    /// PUBREL, and waits for PUBCOMP.
    pub(super) async fn release(&mut self, packet_id: PacketId) {
        self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::Success))).await;
        match self.recv().await {
            Packet::PubComp(ack) => assert_eq!(ack.packet_id, packet_id),
            other => panic!("{other:?} instead of PUBCOMP"),
        }
    }

    /// The payloads of the next messages, in order, each with its exchange completed.
    pub(super) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut received = Vec::new();
        let mut unreleased = 0_usize;
        while received.len() < count || unreleased > 0 {
            match self.recv().await {
                Packet::Publish(message) => {
                    received.push(String::from_utf8(message.payload.to_vec()).unwrap());
                    let Some(packet_id) = message.packet_id else { continue };
                    let ack = Ack::new(packet_id, ReasonCode::Success);
                    if message.qos == QoS::ExactlyOnce {
                        unreleased += 1;
                        self.send(Packet::PubRec(ack)).await;
                    } else {
                        self.send(Packet::PubAck(ack)).await;
                    }
                }
                Packet::PubRel(ack) => {
                    unreleased -= 1;
                    self.send(Packet::PubComp(ack)).await;
                }
                other => panic!("{other:?} instead of a message"),
            }
        }
        received
    }

    /// Answers a received message as its QoS wants it.
    pub(super) async fn acknowledge(&mut self, publish: &Publish) {
        let Some(packet_id) = publish.packet_id else { return };
        let ack = Ack::new(packet_id, ReasonCode::Success);
        if publish.qos == QoS::AtLeastOnce {
            return self.send(Packet::PubAck(ack)).await;
        }
        self.send(Packet::PubRec(ack.clone())).await;
        match self.recv().await {
            Packet::PubRel(release) => assert_eq!(release.packet_id, packet_id),
            other => panic!("{other:?} instead of PUBREL"),
        }
        self.send(Packet::PubComp(ack)).await;
    }

    pub(super) async fn disconnect(mut self, reason: ReasonCode) {
        let properties = DisconnectProperties::default();
        self.send(Packet::Disconnect(Disconnect { reason, properties })).await;
        self.expect_closed().await;
    }
}
