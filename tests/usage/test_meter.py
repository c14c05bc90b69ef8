import uuid

from service.usage.meter import Meter


def test_a_meter_adds_up_and_its_row_has_the_same_id_and_time_however_often_it_is_made() -> None:
    meter = Meter("request-1", b"\xab" * 32, "ana", "reasoning", "good", started=0.0)
    meter.add(7, 4, 0.25)
    meter.add(3, 1)
    meter.cached = True
    row, again = meter.row(200), meter.row(499)
    assert (row.tokens_in, row.tokens_out, row.cost_usd, row.cached, row.status) == (10, 5, 0.25, True, 200)
    assert (row.id, row.timestamp) == (again.id, again.timestamp)
    assert isinstance(row.id, uuid.UUID)
    assert row.key_hash == "ab" * 32
    assert row.duration_s > 0
