"""A run goes on with what it began with, to the last bit, or not at all."""

import pytest
import torch

from configs.errors import UsageError
from training.origin import Origin, Source, digest


def origin(images="a", generator="b"):
    sources = {"images": Source(images, "put them back"), "weights": Source(generator, "fetch them")}
    return Origin(sources, "--name OTHER")


def test_the_same_may_go_on():
    origin().load_state_dict(origin().state_dict())


def test_another_source_is_named_with_the_remedy():
    with pytest.raises(UsageError, match=r"began with other weights: fetch them, or choose --name OTHER"):
        origin().load_state_dict(origin(generator="c").state_dict())
    with pytest.raises(UsageError, match=r"began with other images: put them back"):
        origin("c").load_state_dict(origin().state_dict())


def test_what_an_older_checkpoint_does_not_keep_is_passed_over():
    origin().load_state_dict({})
    origin().load_state_dict({"images": "a", "something else": "c"})
    with pytest.raises(UsageError, match="began with other images"):
        origin().load_state_dict({"images": "c"})


def test_a_digest_knows_texts_and_where_they_end():
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], [], [""], ["n\udcff"]]
    assert len({digest(contents) for contents in texts}) == len(texts)


def test_a_digest_knows_every_bit_the_type_and_the_shape():
    x = torch.arange(12, dtype=torch.uint8)
    other = x.clone()
    other[7] ^= 1
    alike = [[x], [other], [x.view(3, 4)], [x[:6], x[6:]], [x.view(torch.int32)], [x, x]]
    assert len({digest(tensors) for tensors in alike}) == len(alike)
    assert digest([x.view(3, 4).T.contiguous().T]) == digest([x.view(3, 4)])
