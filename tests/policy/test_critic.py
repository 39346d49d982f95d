"""The critic: starts at zero, looks at one image alone, and can tell images apart."""

import pytest
import torch

from policy.critic import Critic


def images(n, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [4, 16, 28, 32, 33])
def test_a_new_critic_expects_nothing_of_any_image(size):
    assert torch.equal(Critic(8, size)(images(3, size)), torch.zeros(3))


def test_a_guess_depends_on_its_image_alone():
    torch.manual_seed(0)
    critic = Critic(8, 16)
    torch.nn.init.normal_(critic.value.weight)
    x = images(6)
    together = critic(x)
    assert together.std() > 0
    assert torch.equal(critic.eval()(x), together)
    assert torch.allclose(torch.cat([critic(one[None]) for one in x]), together, atol=1e-5)
    assert not list(critic.buffers())


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16 x 16"):
        Critic(8, 16)(images(2, size=32))


def test_it_learns_what_an_image_shows():
    torch.manual_seed(0)
    critic = Critic(8, 8)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    x = images(64, size=8)
    x[:32, :, :, :4] *= 0.3  # half of the images are dark on the left
    truth = torch.cat([torch.ones(32), -torch.ones(32)])
    for _ in range(60):
        loss = (critic(x) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
