"""Salvage: what can be read of a partition where aiokafka's own reading stops at a record it cannot decode."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint

from rewardpoints.events.records import Record, UndecodableRecord

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_COUNTED_FROM: Final = DefaultRecordBase.AFTER_LEN_OFFSET
_MAGIC_AT: Final = 16
_HEADER_BYTES: Final = DefaultRecordBase.HEADER_STRUCT.size
_NEWEST_CODEC: Final = DefaultRecordBase.CODEC_ZSTD
_MAGIC: Final = 2


class Salvaged(NamedTuple):
    """Records in their order, the offset to read on from, and whether aiokafka would have stopped among them."""

    records: Sequence[Record]
    next_offset: int
    broken: bool


def salvage(partition: TopicPartition, chunk: bytes, *, position: int, max_records: int | None) -> Salvaged:
    """Read a fetch answer from offset ``position`` on; an ``UndecodableRecord`` stands for what cannot be decoded.

    Raises:
        CorruptRecordException: a checksum is wrong, another replica may have it right; or a batch is older than
            format 2.
        UnsupportedCodecError: the library for a batch's compression is not installed.
    """
    found: list[Record] = []
    broken = False
    for batch in _batches(chunk):
        if batch.next_offset <= position:
            continue
        if not batch.is_control_batch:
            for record in _records(partition, batch):
                if max_records is not None and len(found) >= max_records:
                    return Salvaged(found, position, broken)
                last = record.last_offset if isinstance(record, UndecodableRecord) else record.offset
                if last < position:
                    broken = broken or isinstance(record, UndecodableRecord)
                    continue
                if isinstance(record, UndecodableRecord):
                    broken = True
                    record.offset = max(record.offset, position)
                found.append(record)
                position = last + 1
            broken = broken or _has_rest(batch)
        position = batch.next_offset
    return Salvaged(found, position, broken)


def _batches(chunk: bytes) -> Iterator[Any]:
    """The batches that are whole; the last one of a fetch answer seldom is."""
    start = 0
    while len(chunk) - start >= _HEADER_BYTES:
        end = start + _COUNTED_FROM + _LENGTH.unpack_from(chunk, start + _LENGTH_AT)[0]
        if end > len(chunk):
            return
        if end - start < _HEADER_BYTES or chunk[start + _MAGIC_AT] != _MAGIC:
            raise CorruptRecordException("no batch of format 2")
        batch = _DefaultRecordBatchPy(chunk[start:end])
        if not batch.validate_crc():
            raise CorruptRecordException(f"wrong checksum in the batch from offset {batch.base_offset} on")
        yield batch
        start = end


def _records(partition: TopicPartition, batch: Any) -> Iterator[Record]:
    last = batch.next_offset - 1
    try:
        iter(batch)  # decompresses
    except Exception as error:
        if isinstance(error, UnsupportedCodecError) and batch.compression_type <= _NEWEST_CODEC:
            raise
        yield _undecodable(partition, batch.base_offset, last, batch.max_timestamp, error)
        return
    offset = batch.base_offset
    for _ in range(batch._num_records):  # noqa: SLF001 - no public way
        try:
            end, here, timestamp = _frame(batch, offset)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing says where the next record begins
            yield _undecodable(partition, offset, last, batch.max_timestamp, error)
            return
        try:
            read = next(batch)
        except Exception as error:  # noqa: BLE001 - decoders raise what they like
            yield _undecodable(partition, here, here, timestamp, error)
            batch._pos = end  # noqa: SLF001 - no public way to step over a record
            batch._next_record_index += 1  # noqa: SLF001 - as above
        else:
            yield _record(partition, read)
        offset = here + 1


def _frame(batch: Any, least_offset: int) -> tuple[int, int, int]:
    """Where the next record ends, its offset and its timestamp."""
    buffer, start = batch._buffer, batch._pos  # noqa: SLF001 - no public way
    length, start = decode_varint(buffer, start)
    end = start + length
    _, at = decode_varint(buffer, start)
    timestamp_delta, at = decode_varint(buffer, at)
    offset_delta, at = decode_varint(buffer, at)
    offset = batch.base_offset + offset_delta
    if not at <= end <= len(buffer) or not least_offset <= offset < batch.next_offset:
        raise CorruptRecordException(f"no record begins after offset {least_offset - 1}")
    appended = batch.timestamp_type == DefaultRecordBase.LOG_APPEND_TIME
    return end, offset, batch.max_timestamp if appended else batch.first_timestamp + timestamp_delta


def _has_rest(batch: Any) -> bool:
    """Whether bytes follow the last record, which aiokafka does not forgive; the records are whole."""
    return bool(batch._pos != len(batch._buffer))  # noqa: SLF001 - no public way


def _record(partition: TopicPartition, read: Any) -> Record:
    record: Record = ConsumerRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=read.offset,
        timestamp=read.timestamp,
        timestamp_type=read.timestamp_type,
        key=read.key,
        value=read.value,
        checksum=None,
        serialized_key_size=-1 if read.key is None else len(read.key),
        serialized_value_size=-1 if read.value is None else len(read.value),
        headers=tuple(read.headers),
    )
    return record


def _undecodable(
    partition: TopicPartition, first: int, last: int, timestamp: int, error: Exception
) -> UndecodableRecord:
    cause = error.__cause__ or error
    return UndecodableRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=first,
        last_offset=last,
        timestamp=timestamp,
        error=f"{type(cause).__name__}: {cause}",
    )
