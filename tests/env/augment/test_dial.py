import pytest

from env.augment.dial import Dial


@pytest.mark.parametrize(
    ("strength", "area", "probability", "blend", "turn"),
    [
        (0.0, 1, 0, 0, 0),
        (0.5, 0.2, 0.4, 0.4, 0.1),
        (1.0, 0.08, 0.8, 0.8, 0.2),
    ],  # nothing, AdaInf's weak setting, SimCLR's
)
def test_the_dial_passes_through_the_published_settings(strength, area, probability, blend, turn):
    dial = Dial(strength)
    found = dial.smallest_area, dial.jitter_probability, dial.blend, dial.turn
    assert found == pytest.approx((area, probability, blend, turn), rel=1e-3)
