"""Facts about sites: where they are, which tokens an edit sees, what is refused, what it costs."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, PreTrainedModel, StaticCache

from steerlab.positions import PositionError
from steerlab.sites import Site, SiteError, Where, capture, edit, first_blocks, layer_index, modules, prompt
from steerlab.tiny_models import FAMILIES
from tests.laws.subjects import LAYERS, every_site, tiny_model

BLOCK = Site("block_output", 1)
HEADS = Site("attention_heads", 1)
IDS = torch.tensor([[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]])
PADDED = torch.tensor([[256, 256, 30, 40, 50], [60, 70, 80, 90, 100]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
POSITIONS = (MASK.cumsum(1) - 1).clamp(min=0)


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny_model("llama")


def plus_one(x: Tensor, where: Where) -> Tensor:
    return x + 1


def double(x: Tensor, where: Where) -> Tensor:
    return x * 2


class Recorder:
    """An edit that changes nothing and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], Where]] = []

    def __call__(self, x: Tensor, where: Where) -> Tensor:
        self.seen.append((tuple(x.shape), where))
        return x

    def positions(self) -> list[list[list[int]]]:
        return [where.position.tolist() for _, where in self.seen]


# ---- where the sites are ----


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_are_transformers_own_hidden_states_and_logits(family: str) -> None:
    with capture(tiny_model(family), every_site()) as states, torch.no_grad():
        output = tiny_model(family)(IDS, output_hidden_states=True)
    assert torch.equal(states[Site("embeddings")], output.hidden_states[0])
    for layer in range(LAYERS - 1):
        assert torch.equal(states[Site("block_output", layer)], output.hidden_states[layer + 1])
    assert not torch.equal(states[Site("block_output", LAYERS - 1)], output.hidden_states[LAYERS])  # before the norm
    assert torch.equal(states[Site("lm_head_input")], output.hidden_states[LAYERS])  # after the norm
    assert torch.equal(states[Site("logits")], output.logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_one_head_reaches_the_residual_stream_through_its_columns_of_the_projection(family: str) -> None:
    model, head = tiny_model(family), 2
    with capture(model, [HEADS]) as states, torch.no_grad():
        model(IDS)
    size = states[HEADS].shape[-1]
    width = getattr(model.config, "head_dim", None) or model.config.hidden_size // 4
    assert states[HEADS].shape == (2, 5, 4, width)

    paths = [path for path, _ in model.named_modules() if ".1." in path]
    [path] = [
        p for p in paths if p.endswith(("o_proj", "attn.c_proj", "attn.out_proj", "attention.out_proj", ".dense"))
    ]
    projection = model.get_submodule(path)
    own = states[HEADS].flatten(-2)
    moved = own.clone()
    moved[..., head * size : (head + 1) * size] += 1
    seen = {}
    with edit(model, {HEADS: lambda x, where: x + nn.functional.one_hot(torch.tensor(head), 4)[:, None]}):
        handle = projection.register_forward_hook(lambda module, args, output: seen.update(output=output))
        with torch.no_grad():
            model(IDS)
        handle.remove()
    torch.testing.assert_close(seen["output"], projection(moved))


def test_an_added_vector_is_added_exactly(model: PreTrainedModel) -> None:
    vector = torch.linspace(-1, 1, 16)
    with capture(model, [BLOCK]) as base, torch.no_grad():
        model(IDS)
    with edit(model, {BLOCK: lambda x, where: x + vector}), capture(model, [BLOCK]) as steered, torch.no_grad():
        model(IDS)
    assert torch.equal(steered[BLOCK], base[BLOCK] + vector)


def test_from_last_prompt_token_edits_the_last_prompt_token_and_what_follows_it(model: PreTrainedModel) -> None:
    with capture(model, [BLOCK]) as base, torch.no_grad():
        model(IDS)
    with (
        prompt(model, [3, 4], torch.ones_like(IDS)),
        edit(model, {BLOCK: plus_one}, scope="from_last_prompt_token"),
        capture(model, [BLOCK]) as steered,
        torch.no_grad(),
    ):
        model(IDS)
    edited = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]])
    assert torch.equal(steered[BLOCK], base[BLOCK] + edited[..., None])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_a_forward_in_two_parts_is_edited_like_one_in_one_part(model: PreTrainedModel, side: str, first: int) -> None:
    ids, mask = (PADDED, MASK) if side == "left" else (PADDED.flip(1), MASK.flip(1))
    positions, cache = (mask.cumsum(1) - 1).clamp(min=0), DynamicCache(config=model.config)
    parts = []
    with (
        prompt(model, [2, 4], mask),
        edit(model, {BLOCK: plus_one}, scope="from_last_prompt_token"),
        capture(model, [BLOCK]) as states,
        torch.no_grad(),
    ):
        model(ids, attention_mask=mask, position_ids=positions)
        whole = states[BLOCK]
        for part in (slice(0, first), slice(first, 5)):
            given = {"attention_mask": mask[:, : part.stop], "position_ids": positions[:, part]}
            model(ids[:, part], **given, past_key_values=cache)
            parts.append(states[BLOCK])
    torch.testing.assert_close(torch.cat(parts, 1)[mask == 1], whole[mask == 1])


def test_a_bare_forward_is_edited_from_its_last_real_token_on(model: PreTrainedModel) -> None:
    with capture(model, [BLOCK]) as base, torch.no_grad():
        model(IDS, attention_mask=MASK.flip(1))
    with edit(model, {BLOCK: plus_one}, scope="from_last_prompt_token"), capture(model, [BLOCK]) as steered:
        model(IDS, attention_mask=MASK.flip(1))
    edited = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])
    assert torch.equal(steered[BLOCK], base[BLOCK] + edited[..., None])


# ---- several at once ----


def test_edits_act_in_the_order_in_which_they_were_opened(model: PreTrainedModel) -> None:
    with capture(model, [BLOCK]) as base, torch.no_grad():
        model(IDS)
    with edit(model, {BLOCK: plus_one}), edit(model, {BLOCK: double}), capture(model, [BLOCK]) as both:
        model(IDS)
    assert torch.equal(both[BLOCK], (base[BLOCK] + 1) * 2)


def test_nested_edits_generate_as_their_composition(model: PreTrainedModel) -> None:
    options = {"attention_mask": MASK, "max_new_tokens": 4, "do_sample": False}
    scope = "from_last_prompt_token"
    with edit(model, {BLOCK: plus_one}, scope=scope), edit(model, {BLOCK: double}, scope=scope):
        nested = model.generate(PADDED, **options)
    with edit(model, {BLOCK: lambda x, where: (x + 1) * 2}, scope=scope):
        composed = model.generate(PADDED, **options)
    assert torch.equal(nested, composed)
    assert "generate" not in model.__dict__


def test_an_edit_outlives_one_that_was_opened_before_it(model: PreTrainedModel) -> None:
    first, second = edit(model, {BLOCK: plus_one}), Recorder()
    first.__enter__()
    with edit(model, {BLOCK: second}):
        first.__exit__(None, None, None)
        model.generate(IDS, max_new_tokens=2, min_new_tokens=2, use_cache=True)
    assert second.positions()[-1] == [[5], [5]]
    assert "generate" not in model.__dict__


def test_another_shadow_of_generate_is_put_back(llama: PreTrainedModel) -> None:
    llama.generate = theirs = lambda *args, **kwargs: "theirs"
    try:
        with edit(llama, {BLOCK: plus_one}):
            assert llama.generate(IDS) == "theirs"
        assert llama.generate is theirs
    finally:
        del llama.generate


# ---- where: positions, pads, prompts ----


def test_generate_counts_positions_from_the_first_real_token(model: PreTrainedModel) -> None:
    recorder = Recorder()
    with edit(model, {BLOCK: recorder}):
        model.generate(PADDED, attention_mask=MASK, max_new_tokens=3, min_new_tokens=3)
    (_, prefill), (_, first), (_, second) = recorder.seen
    assert prefill.position.tolist() == [[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert torch.equal(prefill.is_pad, MASK == 0)
    assert torch.equal(prefill.is_prompt, MASK == 1)
    assert first.position.tolist() == [[3], [5]]
    assert second.position.tolist() == [[4], [6]]
    assert not first.is_pad.any()
    assert not first.is_prompt.any()
    assert first.layer == 1


def test_generate_without_a_mask_takes_pads_as_transformers_does(llama: PreTrainedModel) -> None:
    recorder = Recorder()
    with edit(llama, {BLOCK: recorder}):
        llama.generate(PADDED, pad_token_id=256, eos_token_id=255, max_new_tokens=1)
        llama.generate(PADDED, pad_token_id=256, eos_token_id=256, max_new_tokens=1)  # pad = end of text: no telling
        llama.generate(inputs_embeds=torch.zeros(1, 3, 16), max_new_tokens=1)
        llama.generate(max_new_tokens=1)  # from the begin-of-sequence token
    assert recorder.positions() == [
        [[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]],
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]],
        [[0, 1, 2]],
        [[0]],
    ]


def test_sampled_sequences_of_one_prompt_share_its_positions(model: PreTrainedModel) -> None:
    recorder, options = Recorder(), {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 2}
    with edit(model, {BLOCK: recorder}):
        model.generate(PADDED, attention_mask=MASK, min_new_tokens=2, **options)
    assert recorder.positions()[-1] == [[3], [3], [5], [5]]


def test_a_bare_forward_is_a_prompt_of_its_own_length_and_its_cache_is_continued(model: PreTrainedModel) -> None:
    recorder, cache = Recorder(), DynamicCache(config=model.config)
    with edit(model, {BLOCK: recorder}):
        model(PADDED, attention_mask=MASK, position_ids=POSITIONS, past_key_values=cache)
        longer = torch.cat([MASK, torch.ones(2, 2, dtype=torch.int64)], 1)
        model(IDS[:, :2], attention_mask=longer, position_ids=torch.tensor([[3, 4], [5, 6]]), past_key_values=cache)
    (_, before), (_, after) = recorder.seen
    assert torch.equal(before.is_prompt, MASK == 1)
    assert after.position.tolist() == [[3, 4], [5, 6]]
    assert not after.is_prompt.any()


def test_a_bare_forward_with_a_static_cache_knows_how_far_it_is(llama: PreTrainedModel) -> None:
    recorder, cache = Recorder(), StaticCache(config=llama.config, max_cache_len=16)
    with edit(llama, {BLOCK: recorder}):
        for ids in (IDS, IDS[:, :1]):
            llama(ids, past_key_values=cache)
    assert recorder.positions() == [[[0, 1, 2, 3, 4]] * 2, [[5]] * 2]


def test_a_noted_prompt_goes_on_over_a_shared_prefix_and_its_copies(model: PreTrainedModel) -> None:
    recorder, cache = Recorder(), DynamicCache(config=model.config)
    with prompt(model, [3, 5], MASK), edit(model, {BLOCK: recorder}, scope="from_last_prompt_token"):
        model(PADDED[:, :2], attention_mask=MASK[:, :2], position_ids=POSITIONS[:, :2], past_key_values=cache)
        model(PADDED[:, 2:], attention_mask=MASK, position_ids=POSITIONS[:, 2:], past_key_values=cache)
        cache.batch_repeat_interleave(2)
        model(
            torch.ones(4, 1, dtype=torch.int64), position_ids=torch.tensor([[3], [3], [5], [5]]), past_key_values=cache
        )
    assert recorder.positions() == [[[0, 1, 2], [2, 3, 4]], [[3], [3], [5], [5]]]  # the first forward is out of scope


def test_a_prompt_is_forgotten_when_generate_returns_and_when_its_block_ends(model: PreTrainedModel) -> None:
    recorder = Recorder()
    with edit(model, {BLOCK: recorder}):
        model.generate(PADDED, attention_mask=MASK, max_new_tokens=1)
        model(IDS)
        with prompt(model, [3, 5], MASK):
            model.generate(IDS, max_new_tokens=1)
            model(PADDED, attention_mask=MASK, position_ids=POSITIONS)
        model(IDS)
    padded, plain = [[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4]] * 2
    assert recorder.positions() == [padded, plain, plain, padded, plain]


@pytest.mark.parametrize("keep", [2, torch.tensor([1, 4])], ids=["int", "tensor"])
def test_logits_to_keep_cuts_where_at_the_head_and_at_the_logits(llama: PreTrainedModel, keep: int | Tensor) -> None:
    head, logits, block = Recorder(), Recorder(), Recorder()
    with (
        edit(llama, {Site("lm_head_input"): head, Site("logits"): logits, BLOCK: block}, scope="all"),
        edit(llama, {Site("logits"): plus_one}, scope="from_last_prompt_token"),
        capture(llama, [Site("logits")]) as states,
    ):
        output = llama(PADDED, attention_mask=MASK, logits_to_keep=keep)
    kept = [[1, 2], [3, 4]] if isinstance(keep, int) else [[-1, 2], [1, 4]]
    assert head.positions() == logits.positions() == [kept]
    assert block.positions() == [[[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]]]
    base = llama(PADDED, attention_mask=MASK, logits_to_keep=keep).logits
    assert torch.equal(states[Site("logits")], output.logits)
    assert torch.equal(output.logits, base + torch.tensor([0.0, 1.0])[None, :, None])


# ---- modules ----


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_blocks_alone_give_what_they_give_in_the_whole_model(family: str) -> None:
    model, site = tiny_model(family), Site("block_output", 1)
    tree = list(model.named_modules())
    with torch.no_grad(), capture(model, [site]) as whole:
        model(IDS)
    with torch.no_grad(), first_blocks(model, 2), capture(model, [site]) as cut:
        assert len(list(model.named_modules())) < len(tree)
        model(IDS, use_cache=False)
    assert torch.equal(cut[site], whole[site])
    assert list(model.named_modules()) == tree


def test_modules_are_swapped_and_put_back_also_after_an_error(llama: PreTrainedModel) -> None:
    path = "model.layers.1.mlp"
    own, order = llama.get_submodule(path), [name for name, _ in llama.named_modules()]
    with pytest.raises(ZeroDivisionError), modules(llama, {path: nn.Identity()}):
        assert isinstance(llama.get_submodule(path), nn.Identity)
        raise ZeroDivisionError
    assert llama.get_submodule(path) is own
    assert [name for name, _ in llama.named_modules()] == order


# ---- what is refused, in one sentence that names it ----


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("block_output", 3), "layers 0 to 2 in this model, got layer 3"),
        (Site("block_output", -1), "layers 0 to 2 in this model, got layer -1"),
        (Site("attention_heads"), "layers 0 to 2 in this model, got layer None"),
        (Site("logits", 0), "'logits' has no layers, got layer 0"),
        (Site("mlp", 0), "unknown site 'mlp'"),
    ],
    ids=str,
)
def test_a_site_that_is_not_there_is_refused(llama: PreTrainedModel, site: Site, message: str) -> None:
    for attach in (lambda: edit(llama, {site: plus_one}), lambda: capture(llama, [site])):
        with pytest.raises(SiteError, match=message), attach():
            pass


def test_an_unknown_family_is_refused_by_name(llama: PreTrainedModel) -> None:
    model = copy.copy(llama)
    model.config = copy.deepcopy(llama.config)
    model.config.model_type = "mamba"
    with pytest.raises(SiteError, match="'mamba'"), capture(model, [BLOCK]):
        pass


def test_a_head_size_that_contradicts_the_projection_is_refused(llama: PreTrainedModel) -> None:
    model = copy.copy(llama)
    model.config = copy.deepcopy(llama.config)
    model.config.head_dim = 4  # hidden / heads, but the projection is 24 wide
    with pytest.raises(SiteError, match="24 wide"), capture(model, [HEADS]):
        pass


def test_a_module_that_is_not_there_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(SiteError, match="'model.layers.9'"), modules(llama, {"model.layers.9": nn.Identity()}):
        pass


def test_an_unknown_scope_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(SiteError, match="'last'"), edit(llama, {BLOCK: plus_one}, scope="last"):
        pass


@pytest.mark.parametrize("fn", [lambda x, where: x.double(), lambda x, where: x[:, 1:]], ids=["dtype", "shape"])
def test_an_edit_that_changes_shape_or_dtype_is_refused(llama: PreTrainedModel, fn) -> None:
    with pytest.raises(SiteError, match="same shape and dtype"), edit(llama, {BLOCK: fn}):
        llama(IDS)


def test_forwards_of_which_positions_cannot_be_known_are_refused(llama: PreTrainedModel) -> None:
    with edit(llama, {BLOCK: plus_one}):
        with pytest.raises(PositionError, match="four dimensions"):
            llama(IDS, attention_mask=torch.zeros(2, 1, 5, 5))
        llama(IDS)
        with pytest.raises(SiteError, match="call the whole model"):
            llama.model(IDS)  # not what the forward before it was about
        with pytest.raises(PositionError, match="3 rows does not continue 2 prompts"), prompt(llama, [3, 5], MASK):
            llama(IDS[:1].repeat(3, 1))


@pytest.mark.parametrize("lengths", [[0, 5], [4, 5], [5]], ids=str)
def test_a_prompt_length_that_does_not_fit_the_mask_is_refused(llama: PreTrainedModel, lengths: list[int]) -> None:
    with pytest.raises(PositionError, match="do not fit"), prompt(llama, lengths, MASK):
        pass


def test_a_loss_of_unedited_logits_is_refused(llama: PreTrainedModel) -> None:
    with edit(llama, {Site("logits"): plus_one}), pytest.raises(SiteError, match="loss"):
        llama(IDS, labels=IDS)


@pytest.mark.parametrize(("layer", "index"), [(0.5, 15), (0, 0), (0.99, 29), (1, 1), (29, 29)])
def test_a_layer_is_a_share_of_the_depth_or_an_index(llama: PreTrainedModel, layer: float, index: int) -> None:
    config = copy.deepcopy(llama.config)
    config.num_hidden_layers = 30
    assert layer_index(config, layer) == index
    for wrong in (30, -1, 1.5):
        with pytest.raises(SiteError, match=f"layer {wrong}"):
            layer_index(config, wrong)


# ---- what it costs ----


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_a_decoding_step_neither_waits_for_the_device_nor_selects_tokens(model: PreTrainedModel, options: dict) -> None:
    """Counted over two generations of one prompt that differ by four decoding steps."""

    def count(tokens: int) -> list[int]:
        with torch.no_grad(), _Operations() as operations:
            options_ = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False} | options
            model.generate(PADDED, attention_mask=MASK, **options_)
        return [operations.names.count(name) for name in ("_local_scalar_dense", "where")]

    def per_steps() -> list[int]:
        return [after - before for before, after in zip(count(2), count(6))]

    base = per_steps()
    with edit(model, dict.fromkeys(every_site(), lambda x, where: x + 0.1), scope="from_last_prompt_token"):
        assert per_steps() == base
