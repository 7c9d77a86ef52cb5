//! Packets and records as scripts write them.

use crate::mqtt::packet::{Packet, ReasonCode};
use crate::mqtt::server::{PublishRecord, RecordSource};

pub(super) fn show_record(record: &PublishRecord) -> String {
    let payload = String::from_utf8_lossy(&record.payload);
    let client = &record.client_id;
    let source = match record.source {
        RecordSource::Publish(Some(id)) => format!(" {id}"),
        RecordSource::Publish(None) => String::new(),
        RecordSource::Will => " will".to_owned(),
    };
    format!("STORED {}={payload} q{} from {client}{source}", record.topic, record.qos.as_u8())
}

/// A packet as scripts expect it.
pub(in crate::mqtt::server) fn show(packet: &Packet) -> String {
    let reason = |reason: ReasonCode| match reason {
        ReasonCode::Success => String::new(),
        other => format!(" {other:?}"),
    };
    match packet {
        Packet::ConnAck(p) => {
            let mut text = format!("CONNACK{}", if p.session_present { " present" } else { "" });
            text += &reason(p.reason);
            if let Some(id) = &p.properties.assigned_client_identifier {
                text += &format!(" assigned={}", id.get(..5).unwrap_or_default());
            }
            if let Some(secs) = p.properties.session_expiry_interval_secs {
                text += &format!(" expiry={secs}");
            }
            if let Some(secs) = p.properties.server_keep_alive_secs {
                text += &format!(" ka={secs}");
            }
            text
        }
        Packet::Publish(p) => {
            let topic = p.topic.as_ref().map_or("", |topic| topic.as_str());
            let mut text = format!("PUB {topic}={}", String::from_utf8_lossy(&p.payload));
            if let Some(id) = p.packet_id {
                text += &format!(" q{} {id}", p.qos.as_u8());
            }
            text += if p.dup { " dup" } else { "" };
            text += if p.retain { " retain" } else { "" };
            if let Some(secs) = p.properties.message.message_expiry_interval_secs {
                text += &format!(" exp={secs}");
            }
            for id in &p.properties.subscription_identifiers {
                text += &format!(" id={id}");
            }
            text
        }
        Packet::PubAck(p) => format!("PUBACK {}{}", p.packet_id, reason(p.reason)),
        Packet::PubRec(p) => format!("PUBREC {}{}", p.packet_id, reason(p.reason)),
        Packet::PubRel(p) => format!("PUBREL {}{}", p.packet_id, reason(p.reason)),
        Packet::PubComp(p) => format!("PUBCOMP {}{}", p.packet_id, reason(p.reason)),
        Packet::SubAck(p) => {
            let reasons: Vec<String> = p
                .reasons
                .iter()
                .map(|reason| match reason.as_u8() {
                    granted @ 0..=2 => format!("q{granted}"),
                    _ => format!("{reason:?}"),
                })
                .collect();
            format!("SUBACK {} {}", p.packet_id, reasons.join(" "))
        }
        Packet::UnsubAck(p) => {
            let reasons: String = p.reasons.iter().map(|r| reason(*r)).collect();
            format!("UNSUBACK {}{reasons}", p.packet_id)
        }
        Packet::Disconnect(p) => format!("DISCONNECT{}", reason(p.reason)),
        other => other.name().to_owned(),
    }
}
