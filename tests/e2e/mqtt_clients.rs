//! Stock MQTT clients against `robustmq-edge`, which has no cloud here: the uplink's absence disturbs nobody.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::TestEdge;
use robustmq_tests::clients::programs;
use robustmq_tests::process::free_port;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// An edge whose cloud does not answer.
async fn lonely_edge() -> anyhow::Result<TestEdge> {
    TestEdge::start("lonely", &format!("http://127.0.0.1:{}", free_port()?)).await
}

fn host_and_port(edge: &TestEdge) -> anyhow::Result<(String, u16)> {
    let address: std::net::SocketAddr = edge.mqtt()?.parse()?;
    Ok((address.ip().to_string(), address.port()))
}

async fn paho(protocol: &str) -> anyhow::Result<serde_json::Value> {
    let edge = lonely_edge().await?;
    let (host, port) = host_and_port(&edge)?;
    let mut command = programs::python("paho_client.py")?;
    command.args(["--host", &host, "--port", &port.to_string(), "--protocol", protocol]);
    Ok(serde_json::from_str(&programs::output(command).await?)?)
}

fn paho_expects() -> serde_json::Value {
    serde_json::json!({
        "connected": ["Success", "Success"],
        "granted": [2],
        "in_order": [true, true, true],
        "qualities": [0, 1, 2],
        "retained": ["second", true],
        "after_clearing": "paho/mark",
        "will": "gone",
        "fresh_session": false,
        "kept_session": true,
        "after_sleep": true,
        "shared": true,
    })
}

#[tokio::test]
async fn paho_with_mqtt_3() -> anyhow::Result<()> {
    assert_eq!(paho("3").await?, paho_expects());
    Ok(())
}

#[tokio::test]
async fn paho_with_mqtt_5() -> anyhow::Result<()> {
    let mut expected = paho_expects();
    expected["properties"] = serde_json::json!([
        "application/json",
        "paho/answers",
        [0, 1],
        [["unit", "mm"], ["unit", "cm"]],
        1
    ]);
    assert_eq!(paho("5").await?, expected);
    Ok(())
}

/// `mosquitto_sub`, which ends by itself after `count` messages.
struct Subscriber {
    child: Child,
}

impl Subscriber {
    fn start(edge: &TestEdge, arguments: &[&str], count: usize) -> anyhow::Result<Self> {
        let (host, port) = host_and_port(edge)?;
        let child = Command::new("mosquitto_sub")
            .args(["-h", &host, "-p", &port.to_string(), "-C", &count.to_string(), "-W", "60"])
            .args(["-F", "%t %q %r %p"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("start mosquitto_sub (scripts/setup installs it)")?;
        Ok(Self { child })
    }

    async fn lines(mut self) -> anyhow::Result<Vec<String>> {
        let stdout = self.child.stdout.take().context("standard output was asked for")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().await? {
            all.push(line);
        }
        ensure!(self.child.wait().await?.success(), "mosquitto_sub failed after {all:?}");
        Ok(all)
    }
}

async fn mosquitto_pub(edge: &TestEdge, arguments: &[&str]) -> anyhow::Result<()> {
    let (host, port) = host_and_port(edge)?;
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &host, "-p", &port.to_string()]).args(arguments);
    programs::output(command).await.map(drop)
}

#[tokio::test]
async fn mosquitto_tools_with_both_versions() -> anyhow::Result<()> {
    let edge = lonely_edge().await?;
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("mosquitto/{version}/{qos}");
            let payload = format!("hello {qos}");
            // Retained, so that it does not matter which of the two is connected first.
            mosquitto_pub(&edge, &["-V", version, "-q", qos, "-r", "-t", &topic, "-m", &payload])
                .await?;
            let subscriber =
                Subscriber::start(&edge, &["-V", version, "-q", "2", "-t", &topic], 1)?;
            let lines = subscriber.lines().await?;
            // Nothing tells when a PUBLISH with QoS 0 has arrived: it may come after the SUBSCRIBE, and is no retained message then.
            let live = qos == "0" && lines == [format!("{topic} {qos} 0 {payload}")];
            assert!(live || lines == [format!("{topic} {qos} 1 {payload}")], "{lines:?}");
        }
    }
    // One subscription with wildcards finds all six.
    let subscriber = Subscriber::start(&edge, &["-q", "1", "-t", "mosquitto/#"], 6)?;
    assert_eq!(subscriber.lines().await?.len(), 6);
    Ok(())
}

#[tokio::test]
async fn mosquitto_gets_what_waited_in_its_kept_session_over_a_kill_of_the_edge()
-> anyhow::Result<()> {
    let mut edge = lonely_edge().await?;
    let session = ["-c", "-i", "sleeper", "-q", "2", "-t", "night/+"];
    // -E: ends when the subscription was acknowledged.
    let (host, port) = host_and_port(&edge)?;
    let mut subscribe = Command::new("mosquitto_sub");
    subscribe.args(["-h", &host, "-p", &port.to_string(), "-E"]).args(session);
    programs::output(subscribe).await?;
    for number in 0..5 {
        let topic = format!("night/{number}");
        mosquitto_pub(&edge, &["-q", "2", "-t", &topic, "-m", &number.to_string()]).await?;
    }
    edge.kill9().await?;
    edge.start().await?;
    let lines = Subscriber::start(&edge, &session, 5)?.lines().await?;
    let expected: Vec<String> =
        (0..5).map(|number| format!("night/{number} 2 0 {number}")).collect();
    assert_eq!(lines, expected);
    Ok(())
}

#[tokio::test]
async fn rumqttc_sends_and_receives_every_quality() -> anyhow::Result<()> {
    let edge = lonely_edge().await?;
    let (host, port) = host_and_port(&edge)?;
    let mut options = MqttOptions::new("rumqttc", host, port);
    options.set_keep_alive(Duration::from_secs(10));
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).await?;
    let qualities = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for number in 0..30_usize {
        let topic = format!("rumqttc/{}", number % 3);
        client.publish(topic, qualities[number % 3], false, number.to_string()).await?;
    }
    let mut received: Vec<(usize, QoS)> = Vec::new();
    let receive = async {
        while received.len() < 30 {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await? {
                received.push((std::str::from_utf8(&publish.payload)?.parse()?, publish.qos));
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), receive).await??;
    for (remainder, quality) in qualities.into_iter().enumerate() {
        let of_topic: Vec<_> =
            received.iter().filter(|(number, _)| number % 3 == remainder).collect();
        let numbers: Vec<usize> = of_topic.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..10).map(|index| index * 3 + remainder).collect::<Vec<_>>());
        assert!(of_topic.iter().all(|(_, got)| *got == quality), "{of_topic:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_packet_costs_its_sender_the_connection_and_nobody_else() -> anyhow::Result<()>
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let edge = lonely_edge().await?;
    let subscriber = Subscriber::start(&edge, &["-q", "1", "-t", "still/alive"], 1)?;
    let malformed: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        // A remaining length of five bytes.
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
        // CONNECT with another protocol's name.
        &[0x10, 0x0c, 0x00, 0x04, b'M', b'Q', b'X', b'X', 0x04, 0x02, 0x00, 0x00, 0x00, 0x00],
        // PUBLISH before CONNECT.
        &[0x30, 0x03, 0x00, 0x01, b'a'],
        // A reserved packet type.
        &[0x00, 0x00],
    ];
    for bytes in malformed {
        let mut stream = tokio::net::TcpStream::connect(edge.mqtt()?).await?;
        stream.write_all(bytes).await?;
        let mut rest = Vec::new();
        // The edge closes: the read ends, in order or with a reset.
        let closed =
            tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
        ensure!(closed.is_ok(), "still open after {bytes:?}");
    }
    // Retained, so that it does not matter whether the subscriber is there already.
    mosquitto_pub(&edge, &["-q", "1", "-r", "-t", "still/alive", "-m", "yes"]).await?;
    let lines = subscriber.lines().await?;
    ensure!(lines.len() == 1 && lines[0].ends_with(" yes"), "{lines:?}");
    Ok(())
}
