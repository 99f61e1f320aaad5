"""kafka-python, which has a protocol of its own: writes and reads the same, in order."""
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

broker, topic = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=broker, acks="all", compression_type="gzip")
expected = []
for n in range(200):
    key, value = str(n).encode(), f"value {n}".encode() * 10
    producer.send(topic, key=key, value=value)
    expected.append((key, value))
producer.flush(60)
producer.close()

consumer = KafkaConsumer(bootstrap_servers=broker, consumer_timeout_ms=30000)
partition = TopicPartition(topic, 0)
consumer.assign([partition])
consumer.seek_to_beginning(partition)
end = consumer.end_offsets([partition])[partition]
found = []
while consumer.position(partition) < end:
    for records in consumer.poll(timeout_ms=1000).values():
        found += [(record.key, record.value) for record in records]
assert found == expected, (len(found), len(expected))
consumer.close()
print("ok")
