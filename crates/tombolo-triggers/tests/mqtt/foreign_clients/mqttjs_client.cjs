// What a person does with MQTT.js: argument is the port; exits 0 when everything came as it should.
const assert = require("node:assert");
const mqtt = require("mqtt");

const url = `mqtt://127.0.0.1:${process.argv[2]}`;
setTimeout(() => { console.error("too slow"); process.exit(1); }, 20000).unref();

async function connect(version, clientId, more = {}) {
  const client = await mqtt.connectAsync(url, { protocolVersion: version, clientId, reconnectPeriod: 0, ...more });
  client.got = [];
  client.waits = [];
  client.on("message", (topic, payload, packet) => {
    const wait = client.waits.shift();
    wait ? wait(packet) : client.got.push(packet);
  });
  client.next = () => client.got.length ? Promise.resolve(client.got.shift()) : new Promise((done) => client.waits.push(done));
  return client;
}

async function main() {
  for (const version of [4, 5]) {
    const base = `js/${version}`;
    const publisher = await connect(version, `p${version}`);
    const subscriber = await connect(version, `s${version}`);
    await subscriber.subscribeAsync(`${base}/+`, { qos: 2 });
    for (const qos of [0, 1, 2]) {
      await Promise.all(Array.from({ length: 50 }, (_, index) => publisher.publishAsync(`${base}/${qos}`, `${index}`, { qos })));
      for (let index = 0; index < 50; index++) {
        const packet = await subscriber.next();
        assert.equal(packet.payload.toString(), `${index}`);
        assert.equal(packet.qos, qos);
      }
    }
    await publisher.publishAsync(`${base}/kept`, "kept", { qos: 1, retain: true });
    await subscriber.next();
    const late = await connect(version, `l${version}`);
    await late.subscribeAsync(`${base}/kept`, { qos: 1 });
    const kept = await late.next();
    assert(kept.retain && kept.payload.toString() === "kept");
    await late.endAsync();

    if (version === 5) {
      const request = { correlationData: Buffer.from([0, 1, 255]), responseTopic: "js/answer", userProperties: { a: "b" }, contentType: "text/plain" };
      await publisher.publishAsync(`${base}/p`, "x", { qos: 1, properties: { ...request, topicAlias: 1 } });
      const { properties } = await subscriber.next();
      assert.deepEqual(properties.correlationData, request.correlationData);
      assert.equal(properties.responseTopic, request.responseTopic);
      assert.equal(properties.userProperties.a, "b");
      assert.equal(properties.contentType, "text/plain");
    }

    const lasting = { clean: false, ...(version === 5 ? { properties: { sessionExpiryInterval: 600 } } : {}) };
    const away = await connect(version, `away${version}`, lasting);
    await away.subscribeAsync(`${base}/away/x`, { qos: 1 });
    await away.endAsync();
    await publisher.publishAsync(`${base}/away/x`, "waited", { qos: 1 });
    const back = mqtt.connect(url, { protocolVersion: version, clientId: `away${version}`, reconnectPeriod: 0, ...lasting });
    const [payload] = await new Promise((done) => back.on("message", (_, payload) => done([payload])));
    assert.equal(payload.toString(), "waited");
    await back.endAsync();

    await subscriber.subscribeAsync(`${base}/gone/x`, { qos: 1 });
    const mortal = await connect(version, `m${version}`, { will: { topic: `${base}/gone/x`, payload: Buffer.from("gone"), qos: 1 } });
    mortal.stream.destroy();
    assert.equal((await subscriber.next()).payload.toString(), "gone");
    await publisher.endAsync();
    await subscriber.endAsync();
  }
  console.log("ok");
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
