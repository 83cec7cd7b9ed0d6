"""What a person does with paho: argument is the port; exits 0 when everything came as it should."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])


def client(version, name, clean=True, will=None):
    kept = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=version, **kept)
    made.got, made.ready, made.granted = queue.Queue(), queue.Queue(), queue.Queue()
    made.on_message = lambda _c, _u, message: made.got.put(message)
    made.on_connect = lambda _c, _u, flags, code, _p: made.ready.put((flags.session_present, code))
    made.on_subscribe = lambda _c, _u, _m, codes, _p: made.granted.put(codes)
    if will:
        made.will_set(*will, qos=1)
    arguments = {}
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 600
        arguments = {"clean_start": clean, "properties": properties}
    made.connect("127.0.0.1", PORT, 30, **arguments)
    made.loop_start()
    made.present, code = made.ready.get(timeout=10)
    assert code == 0, code
    return made


def subscribe(who, topic, qos=2):
    who.subscribe(topic, qos)
    codes = who.granted.get(timeout=10)
    assert codes[0] == qos, codes


def publish(who, topic, payload, qos=1, retain=False):
    who.publish(topic, payload, qos, retain).wait_for_publish(10)


def go(who):
    who.disconnect()
    who.loop_stop()


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    base = f"paho/{version}"
    publisher = client(version, f"p{version}")
    subscriber = client(version, f"s{version}")
    subscribe(subscriber, f"{base}/+/t")
    for qos in (0, 1, 2):
        for index in range(50):
            publish(publisher, f"{base}/{qos}/t", f"{index}", qos)
        got = [subscriber.got.get(timeout=10) for _ in range(50)]
        assert [int(one.payload) for one in got] == list(range(50))
        assert all(one.qos == qos for one in got)
    big = bytes(range(256)) * 2000
    publish(publisher, f"{base}/big/t", big, 2)
    assert subscriber.got.get(timeout=10).payload == big
    publish(publisher, f"{base}/kept/t", "kept", 1, True)
    assert not subscriber.got.get(timeout=10).retain
    late = client(version, f"l{version}")
    subscribe(late, f"{base}/kept/#")
    kept = late.got.get(timeout=10)
    assert kept.retain and kept.payload == b"kept"
    go(late)

    away = client(version, f"away{version}", clean=False)
    assert not away.present
    subscribe(away, f"{base}/away", 1)
    go(away)
    for index in range(5):
        publish(publisher, f"{base}/away", f"{index}")
    away = client(version, f"away{version}", clean=False)
    assert away.present
    assert [away.got.get(timeout=10).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    go(away)

    subscribe(subscriber, f"{base}/gone")
    mortal = client(version, f"m{version}", will=(f"{base}/gone", "gone"))
    mortal.loop_stop()
    mortal.socket().close()
    assert subscriber.got.get(timeout=10).payload == b"gone"

    members = [client(version, f"w{index}{version}") for index in range(2)]
    for member in members:
        subscribe(member, f"$share/workers/{base}/jobs", 1)
    for index in range(10):
        publish(publisher, f"{base}/jobs", f"{index}")
    done = [member.got.get(timeout=10).payload for member in members for _ in range(5)]
    assert sorted(done) == [str(index).encode() for index in range(10)]
    for one in (publisher, subscriber, *members):
        go(one)
print("ok")
