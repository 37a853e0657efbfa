"""A total that is still to come has all that is in it for whoever looks at its numbers, and is as it is for others."""

import copy
import pickle

import numpy as np
import pytest
import torch

from lpmppl.effects.deferred import Deferred, arrived


@pytest.fixture
def total():
    plain, times = torch.zeros(3, dtype=torch.int64), []

    def settle():
        if not times:
            plain.add_(7)
        times.append(1)

    found = Deferred.of(plain, settle)
    found.times = times
    return found


LOOKS = {
    "tensor": lambda x: torch.tensor(x),
    "as_tensor": lambda x: torch.as_tensor(x, dtype=torch.float64),
    "asarray": lambda x: torch.asarray(x, dtype=torch.float32),
    "new_tensor": lambda x: torch.zeros(1).new_tensor(x),
    "np.asarray": np.asarray,
    "np.from_dlpack": np.from_dlpack,
    "from_dlpack": torch.from_dlpack,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "data": lambda x: x.data,
    "list": lambda x: [int(n) for n in x],
    "stack": lambda x: torch.stack([x, x])[1],
    "copy_": lambda x: torch.zeros(3).copy_(x),
    "added": lambda x: torch.zeros(3, dtype=torch.int64).index_add(0, torch.arange(3), x),
    "on the right": lambda x: torch.zeros(3) + x,
    "by name": lambda x: torch.add(torch.zeros(3), other=x),
    "vmap": lambda x: torch.func.vmap(lambda y: y + 0)(x),
    "numpy": lambda x: x.numpy(),
    "view": lambda x: x.view(3, 1)[:, 0],
    "tolist": lambda x: x.tolist(),
    "arrived": lambda x: arrived([(x,)])[0][0],
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_who_looks_has_all_of_it(total, look):
    assert np.asarray(look(total)).tolist() == [7, 7, 7]
    assert not isinstance(look(total), Deferred)


def test_what_it_is_can_be_asked_before(total):
    assert total.shape == (3,) and total.dtype == torch.int64 and total.dim() == 1 and len(total) == 3
    assert not total.is_floating_point() and not total.requires_grad and total.is_cpu and total.is_contiguous()
    assert total.detach() is total and torch.as_tensor(total) is total
    assert not total.times
    total[1] = 9
    assert total.tolist() == [7, 9, 7] and "7, 9, 7" in repr(total)
