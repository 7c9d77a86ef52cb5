"""paho-mqtt against an edge: walks through what a device and an application do. Prints what it saw as one JSON object."""

import argparse
import json
import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--protocol", choices=["3", "5"], required=True)
args = parser.parse_args()
V5 = args.protocol == "5"
WAIT = 20
seen = {}


class Client:
    """One connection whose callbacks go to queues."""

    def __init__(self, name, keep_session=False, will=None):
        protocol = mqtt.MQTTv5 if V5 else mqtt.MQTTv311
        more = {} if V5 else {"clean_session": not keep_session}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, **more)
        self.connected, self.subscribed, self.messages = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put((flags.session_present, str(reason)))
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.subscribed.put([reason.value for reason in reasons])
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.client.will_set(*will)
        more = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if keep_session else 0
            more = {"clean_start": not keep_session, "properties": properties}
        self.client.connect(args.host, args.port, keepalive=30, **more)
        self.client.loop_start()
        self.session_present, self.reason = self.connected.get(timeout=WAIT)

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=WAIT)

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.client.publish(topic, payload, qos, retain, properties).wait_for_publish(WAIT)

    def take(self, count):
        return [self.messages.get(timeout=WAIT) for _ in range(count)]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Closes the socket without DISCONNECT, as a power cut does."""
        self.client.loop_stop()
        self.client.socket().close()


device, application = Client("paho-device"), Client("paho-application")
seen["connected"] = [device.reason, application.reason]

# Every quality of service, in order.
seen["granted"] = application.subscribe("paho/+/value", 2)
for qos in (0, 1, 2):
    for number in range(20):
        device.publish(f"paho/{qos}/value", f"{number}", qos)
got = application.take(60)
seen["in_order"] = [[int(m.payload) for m in got if m.topic == f"paho/{qos}/value"] == list(range(20)) for qos in (0, 1, 2)]
seen["qualities"] = sorted({m.qos for m in got})

# Retained messages: kept, marked, cleared.
device.publish("paho/kept", "first", 1, retain=True)
device.publish("paho/kept", "second", 1, retain=True)
late = Client("paho-late")
late.subscribe("paho/kept", 1)
message = late.take(1)[0]
seen["retained"] = [message.payload.decode(), bool(message.retain)]
device.publish("paho/kept", "", 1, retain=True)
late.take(1)
later = Client("paho-later")
later.subscribe("paho/kept", 1)
later.subscribe("paho/mark", 1)
device.publish("paho/mark", "mark", 1)
seen["after_clearing"] = later.take(1)[0].topic

# A will, when the client vanishes.
application.subscribe("paho/wills", 1)
mortal = Client("paho-mortal", will=("paho/wills", "gone", 1))
mortal.vanish()
seen["will"] = application.take(1)[0].payload.decode()

# A kept session: what came meanwhile waits.
sleeper = Client("paho-sleeper", keep_session=True)
seen["fresh_session"] = sleeper.session_present
sleeper.subscribe("paho/night", 2)
sleeper.close()
for number in range(10):
    device.publish("paho/night", f"{number}", 2)
sleeper = Client("paho-sleeper", keep_session=True)
seen["kept_session"] = sleeper.session_present
seen["after_sleep"] = [int(m.payload) for m in sleeper.take(10)] == list(range(10))

# A shared subscription: each message to one of the two.
workers = [Client("paho-worker-0"), Client("paho-worker-1")]
for worker in workers:
    worker.subscribe("$share/crew/paho/jobs", 1)
for number in range(40):
    device.publish("paho/jobs", f"{number}", 1)
done = []
while len(done) < 40:
    for worker in workers:
        try:
            done.append(int(worker.messages.get(timeout=0.05).payload))
        except queue.Empty:
            pass
seen["shared"] = sorted(done) == list(range(40))

if V5:
    # Properties reach the subscriber unchanged.
    application.subscribe("paho/properties", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.ResponseTopic = "paho/answers"
    properties.CorrelationData = b"\x00\x01"
    properties.UserProperty = [("unit", "mm"), ("unit", "cm")]
    properties.PayloadFormatIndicator = 1
    device.publish("paho/properties", "{}", 1, properties=properties)
    found = application.take(1)[0].properties
    seen["properties"] = [
        found.ContentType,
        found.ResponseTopic,
        list(found.CorrelationData),
        [list(pair) for pair in found.UserProperty],
        found.PayloadFormatIndicator,
    ]

for client in (device, application, late, later, sleeper, *workers):
    client.close()
print(json.dumps(seen))
