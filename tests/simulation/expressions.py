"""The part of MongoDB's query, update and aggregation language that the ledger uses; anything else is refused."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from operator import ge, gt, le, lt
from typing import Any

Document = dict[str, Any]
_MISSING = object()
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}


def matches(document: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a document fulfils a filter."""
    return all(_holds(document.get(field, _MISSING), wanted) for field, wanted in condition.items())


def _holds(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value is not _MISSING and value == wanted)
    for operator, operand in wanted.items():
        if operator == "$in":
            if value not in operand:
                return False
        elif operator == "$ne":
            if value == operand:
                return False
        elif operator in _COMPARISONS:
            # Only values of one kind compare; a missing field matches no range
            if value is _MISSING or value is None or not _COMPARISONS[operator](value, operand):
                return False
        else:
            raise NotImplementedError(operator)
    return True


def updated(document: Mapping[str, Any], update: Mapping[str, Any], now: datetime) -> Document:
    """The document after an update."""
    changed = dict(document)
    for operator, fields in update.items():
        if operator == "$set":
            changed.update(fields)
        elif operator == "$unset":
            for field in fields:
                changed.pop(field, None)
        elif operator == "$inc":
            changed.update({field: changed.get(field, 0) + by for field, by in fields.items()})
        elif operator == "$currentDate":
            changed.update(dict.fromkeys(fields, now))
        elif operator == "$max":
            changed.update({field: max(changed.get(field, least), least) for field, least in fields.items()})
        else:
            raise NotImplementedError(operator)
    return changed


def projected(document: Mapping[str, Any], projection: Mapping[str, int] | None) -> Document:
    """What a projection leaves of a document."""
    if projection is None:
        return dict(document)
    fields = {field for field, shown in projection.items() if shown}
    if projection.get("_id", 1):
        fields.add("_id")
    return {field: value for field, value in document.items() if field in fields}


def ordered(documents: Iterable[Document], order: Iterable[tuple[str, int]]) -> list[Document]:
    """The documents in the order of the fields, each ascending (1) or descending (-1)."""
    found = list(documents)
    for field, direction in reversed(list(order)):  # sorting is stable: the first field decides last
        found.sort(key=lambda document: document[field], reverse=direction < 0)
    return found


def evaluated(expression: Any, document: Mapping[str, Any]) -> Any:
    """The value of an aggregation expression, as validators use it."""
    if isinstance(expression, str) and expression.startswith("$"):
        return document.get(expression[1:])
    if not isinstance(expression, Mapping):
        return expression
    ((operator, operands),) = expression.items()
    values = [evaluated(operand, document) for operand in operands]
    if operator == "$and":
        return all(values)
    if operator == "$eq":
        return values[0] == values[1]
    return _COMPARISONS[operator](values[0], values[1])


def aggregated(
    documents: list[Document], pipeline: Iterable[Mapping[str, Any]], source: Callable[[str], list[Document]]
) -> list[Document]:
    """The result of a pipeline; ``source`` reads another collection."""
    for stage in pipeline:
        ((name, argument),) = stage.items()
        if name == "$match":
            documents = [document for document in documents if matches(document, argument)]
        elif name == "$sort":
            documents = ordered(documents, argument.items())
        elif name == "$limit":
            documents = documents[:argument]
        elif name == "$group":
            documents = _grouped(documents, argument)
        elif name == "$unionWith":
            documents = documents + aggregated(source(argument["coll"]), argument["pipeline"], source)
        elif name == "$count":
            documents = [{argument: len(documents)}] if documents else []
        else:
            raise NotImplementedError(name)
    return documents


def _grouped(documents: list[Document], argument: Mapping[str, Any]) -> list[Document]:
    groups: dict[Any, list[Document]] = {}
    for document in documents:
        groups.setdefault(evaluated(argument["_id"], document), []).append(document)
    results = []
    for key, members in groups.items():
        result: Document = {"_id": key}
        for field, accumulator in argument.items():
            if field != "_id":
                ((operator, operand),) = accumulator.items()
                values = [evaluated(operand, member) for member in members]
                result[field] = sum(values) if operator == "$sum" else min(values)
        results.append(result)
    return results
