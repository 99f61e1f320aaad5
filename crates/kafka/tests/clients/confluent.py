"""librdkafka: writes with each codec, idempotent and not, and reads the same, in order."""
import sys

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

broker, topic = sys.argv[1:]
expected = []
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    for idempotent in [False, True]:
        producer = Producer({
            "bootstrap.servers": broker,
            "compression.type": codec,
            "enable.idempotence": idempotent,
        })
        delivered = []

        def report(error, message):
            assert error is None, error
            delivered.append(message.offset())

        for n in range(200):
            value = f"{codec} {idempotent} {n}".encode() * 10
            producer.produce(topic, value, key=str(n), headers=[("h", "1"), ("h", "2")], on_delivery=report)
            expected.append((str(n).encode(), value))
        assert producer.flush(60) == 0
        assert len(delivered) == 200

consumer = Consumer({
    "bootstrap.servers": broker,
    "group.id": "none",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
consumer.assign([TopicPartition(topic, 0, 0)])
found = []
while True:
    message = consumer.poll(30)
    assert message is not None, f"only {len(found)} records came"
    if message.error():
        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
        break
    names = [name for name, _ in message.headers()]
    assert names == ["h", "h", "onelog-tx", "onelog-index", "onelog-count"], names
    found.append((message.key(), message.value()))
assert found == expected
low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
assert low == 0 and high >= len(expected), (low, high)
consumer.close()

admin = AdminClient({"bootstrap.servers": broker})
config = {"cleanup.policy": "compact", "onelog.value": "json"}
new = NewTopic("made.here", 1, 1, config=config)
admin.create_topics([new])["made.here"].result(30)
resource = ConfigResource(ConfigResource.Type.TOPIC, "made.here")
configs = admin.describe_configs([resource])[resource].result(30)
assert configs["cleanup.policy"].value == "compact"
assert configs["onelog.value"].value == "json"
admin.delete_topics(["made.here"])["made.here"].result(30)
assert "made.here" not in admin.list_topics(timeout=30).topics
print("ok")
