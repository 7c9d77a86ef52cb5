//! Reads the lines of a script and takes their steps.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::{Kit, Mode};
use crate::mqtt::packet::{
    Ack, Auth, AuthProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    MessageProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter,
    TopicName, Unsubscribe, Will,
};
use crate::mqtt::server::{LocalPublish, StoreRefusal};

impl Kit {
    pub(in crate::mqtt::server) fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//"))
        {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a name");
            let rest: Vec<&str> = words.collect();
            match (name, rest.first().copied()) {
                ("*", _) => self.world_step(line, &rest),
                (_, Some("<")) => self.client_step(name, &rest[1..]),
                (_, Some(">")) => {
                    let expected = rest[1..].join(" ");
                    let conn = self.names[name];
                    let next = self.got.entry(conn).or_default().pop_front();
                    assert_eq!(next.as_deref().unwrap_or("nothing"), expected, "{line}");
                }
                _ => panic!("cannot read {line:?}"),
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        let left: Vec<_> = self
            .names
            .iter()
            .filter(|(_, conn)| self.got.get(conn).is_some_and(|got| !got.is_empty()))
            .map(|(name, conn)| (name, &self.got[conn]))
            .collect();
        assert!(left.is_empty(), "not expected: {left:?}");
        assert!(self.world.is_empty(), "not expected: {:?}", self.world);
    }

    fn world_step(&mut self, line: &str, words: &[&str]) {
        match words {
            ["after", ms] => self.after(ms.parse().expect("milliseconds")),
            ["store", "release"] => {
                self.store = Mode::Ok;
                self.answer_stores();
            }
            ["store", "ok"] => self.store = Mode::Ok,
            ["store", "full"] => {
                self.store = Mode::Refuse(StoreRefusal::Full);
                self.answer_stores();
            }
            ["store", "failed"] => {
                self.store = Mode::Refuse(StoreRefusal::Failed);
                self.answer_stores();
            }
            ["store", "hold"] => self.store = Mode::Hold,
            ["disk", "hold"] => self.disk = Mode::Hold,
            ["disk", "full"] => {
                self.disk = Mode::Hold;
                self.server.set_failing(self.now, true);
            }
            ["disk", "release"] => {
                self.disk = Mode::Ok;
                self.answer_batches();
                self.server.set_failing(self.now, false);
            }
            ["disk", "once"] => {
                let ticket = self.write_batch().expect("a batch is held");
                self.server.persisted(self.now, ticket);
            }
            ["crash"] => {
                self.store = Mode::Ok;
                self.disk = Mode::Ok;
                self.crash();
            }
            ["shutdown"] => self.server.shutdown(self.now),
            ["local", rest @ ..] => {
                let Packet::Publish(publish) = publish(rest) else { panic!("{line}") };
                self.server.publish_local(
                    self.now,
                    LocalPublish {
                        topic: publish.topic.expect("a topic"),
                        payload: publish.payload,
                        qos: publish.qos,
                        retain: publish.retain,
                        properties: publish.properties.message,
                        mark: rest.contains(&"mark").then(|| ("m".into(), Bytes::from("1"))),
                    },
                );
            }
            ["sys", what] => self.publish_sys(what),
            ["STORED", ..] => {
                let next = self.stores_seen.pop_front();
                assert_eq!(next.as_deref().unwrap_or("nothing"), words.join(" "), "{line}");
                return;
            }
            ["LOCALDONE"] => {
                assert_eq!(self.world.pop_front().as_deref(), Some("LOCALDONE"), "{line}");
                return;
            }
            _ => panic!("cannot read {line:?}"),
        }
        self.settle();
    }

    fn publish_sys(&mut self, what: &str) {
        let (topic, payload) = what.split_once('=').expect("TOPIC=PAYLOAD");
        let topic = TopicName::new(topic).expect("valid");
        self.server.publish_sys(self.now, topic, Bytes::copy_from_slice(payload.as_bytes()));
    }

    fn client_step(&mut self, name: &str, words: &[&str]) {
        let packet = match words {
            ["connect", options @ ..] => {
                let connect = connect(name, options);
                let conn = self.open(connect.version);
                if let Some(former) = self.names.insert(name.to_owned(), conn)
                    && let Some(left) = self.got.get(&former)
                {
                    assert!(left.is_empty(), "{name} did not expect {left:?}");
                }
                Packet::Connect(Box::new(connect))
            }
            ["again", options @ ..] => Packet::Connect(Box::new(connect(name, options))),
            // The takeover's old connection stays under another name.
            ["as", other] => {
                let conn = self.names.remove(name).expect("connected");
                self.names.insert((*other).to_owned(), conn);
                return;
            }
            ["drop"] => return self.drop_connection(self.names[name]),
            ["slow"] => {
                self.slow.insert(self.names[name]);
                return;
            }
            ["written"] => {
                let conn = self.names[name];
                self.slow.remove(&conn);
                let bytes = self.unwritten.remove(&conn).unwrap_or(0);
                self.server.written(self.now, conn, bytes);
                return self.settle();
            }
            ["ping"] => Packet::PingReq,
            ["auth"] => Packet::Auth(Auth {
                reason: ReasonCode::ReAuthenticate,
                properties: AuthProperties::default(),
            }),
            ["pub", rest @ ..] => publish(rest),
            ["sub", id, rest @ ..] => subscribe(id, rest),
            ["unsub", id, filters @ ..] => Packet::Unsubscribe(Unsubscribe {
                packet_id: packet_id(id),
                user_properties: Vec::new(),
                filters: filters.iter().map(|f| TopicFilter::new(f).expect("valid")).collect(),
            }),
            ["puback", id] => Packet::PubAck(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubrec", id] => Packet::PubRec(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubrec", id, "refused"] => {
                Packet::PubRec(Ack::new(packet_id(id), ReasonCode::QuotaExceeded))
            }
            ["pubrel", id] => Packet::PubRel(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubcomp", id] => Packet::PubComp(Ack::new(packet_id(id), ReasonCode::Success)),
            ["disconnect", options @ ..] => {
                let will = options.contains(&"will");
                Packet::Disconnect(Disconnect {
                    reason: if will {
                        ReasonCode::DisconnectWithWillMessage
                    } else {
                        ReasonCode::Success
                    },
                    properties: DisconnectProperties {
                        session_expiry_interval_secs: number(options, "expiry="),
                        ..DisconnectProperties::default()
                    },
                })
            }
            other => panic!("{name} cannot {other:?}"),
        };
        self.recv(self.names[name], packet);
    }
}

fn packet_id(text: &str) -> PacketId {
    PacketId::new(text.parse().expect("a number")).expect("not 0")
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key))
}

fn number(words: &[&str], key: &str) -> Option<u32> {
    value(words, key).map(|text| text.parse().expect("a number"))
}

fn qos(number: u32) -> QoS {
    QoS::from_u8(u8::try_from(number).expect("a QoS")).expect("a QoS")
}

fn connect(name: &str, words: &[&str]) -> Connect {
    let has = |word| words.contains(&word);
    let version = if has("v5") { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    let will = value(words, "will=").map(|will| {
        let (topic, payload) = will.split_once('=').expect("TOPIC=PAYLOAD");
        Will {
            topic: TopicName::new(topic).expect("valid"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: qos(number(words, "wq=").unwrap_or(0)),
            retain: has("wretain"),
            delay_interval_secs: number(words, "wdelay=").unwrap_or(0),
            properties: MessageProperties::default(),
        }
    });
    Connect {
        version,
        clean_start: !has("keep"),
        keep_alive_secs: number(words, "ka=").map_or(0, |s| u16::try_from(s).expect("seconds")),
        client_id: value(words, "id=").unwrap_or(name).into(),
        will,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_interval_secs: number(words, "expiry="),
            receive_maximum: number(words, "rm=")
                .and_then(|n| NonZeroU16::new(u16::try_from(n).expect("small"))),
            maximum_packet_size: number(words, "max=").and_then(NonZeroU32::new),
            authentication_method: value(words, "method=").map(Into::into),
            ..ConnectProperties::default()
        },
    }
}

fn publish(words: &[&str]) -> Packet {
    let (topic, payload) = words[0].split_once('=').expect("TOPIC=PAYLOAD");
    let level = words.iter().find_map(|word| match *word {
        "q1" => Some(QoS::AtLeastOnce),
        "q2" => Some(QoS::ExactlyOnce),
        _ => None,
    });
    let id = words.iter().skip(1).find_map(|word| word.parse::<u16>().ok());
    Packet::Publish(Box::new(Publish {
        dup: words.contains(&"dup"),
        qos: level.unwrap_or_default(),
        retain: words.contains(&"retain"),
        topic: (!topic.is_empty()).then(|| TopicName::new(topic).expect("valid")),
        packet_id: id.and_then(PacketId::new),
        properties: PublishProperties {
            message: MessageProperties {
                message_expiry_interval_secs: number(words, "exp="),
                ..MessageProperties::default()
            },
            topic_alias: number(words, "alias=")
                .and_then(|n| NonZeroU16::new(u16::try_from(n).expect("small"))),
            subscription_identifiers: number(words, "id=")
                .and_then(NonZeroU32::new)
                .into_iter()
                .collect(),
        },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }))
}

fn subscribe(id: &str, words: &[&str]) -> Packet {
    let filters = words
        .iter()
        .filter(|word| !word.starts_with("id="))
        .map(|word| {
            let mut parts = word.split(':');
            let filter = TopicFilter::new(parts.next().expect("a filter")).expect("valid");
            let mut options =
                SubscriptionOptions { maximum_qos: QoS::ExactlyOnce, ..Default::default() };
            for part in parts {
                match part {
                    "q0" => options.maximum_qos = QoS::AtMostOnce,
                    "q1" => options.maximum_qos = QoS::AtLeastOnce,
                    "nl" => options.no_local = true,
                    "rap" => options.retain_as_published = true,
                    "rh1" => options.retain_handling = RetainHandling::SendIfNew,
                    "rh2" => options.retain_handling = RetainHandling::DoNotSend,
                    other => panic!("{other}"),
                }
            }
            (filter, options)
        })
        .collect();
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        properties: SubscribeProperties {
            subscription_identifier: number(words, "id=").and_then(NonZeroU32::new),
            user_properties: Vec::new(),
        },
        filters,
    })
}
