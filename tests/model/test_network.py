"""The network against the equations, PyTorch, and its own promises."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from charjax.config.schema import Config
from charjax.model import network
from charjax.model.cells import cell_named, names
from charjax.model.network import Network, init, initial_carry
from charjax.model.recurrence import cpu
from charjax.model.recurrence.choose import Recurrence

VOCAB, HIDDEN = 7, 6
# As eight virtual CPU devices have it; the tests of training take the general one.
HERE = Recurrence("scan", cpu.SEVERAL_DEVICES)
apply = functools.partial(network.apply, recurrence=HERE)
run = jax.jit(apply, static_argnums=0)
initialise = jax.jit(init, static_argnums=(0, 1))
RECURRENT = [name for name in names() if cell_named(name).run is None]
SHAPES = [
    pytest.param(cell, layers, embedding, id=f"{cell}-{layers}-{embedding or 'onehot'}")
    for cell in names()
    for layers in (1, 2, 3)
    for embedding in (None, 5)
]


def make_config(cell="lstm", layers=2, embedding=None, hidden=HIDDEN, **fields):
    sizes = {"num_layers": layers, "hidden_size": hidden, "embedding_size": embedding}
    model = {f"model.{name}": value for name, value in {"cell": cell, **sizes}.items()}
    return Config().replace(**model, **fields)


@functools.cache
def some_params(config):
    """Parameters with no zeros among them, so that each one matters."""
    shapes = jax.eval_shape(lambda: init(config, VOCAB, jax.random.key(0)))
    random = np.random.default_rng(4)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32) * 0.5, shapes
    )


def some_ids(rows=3, steps=5, seed=0):
    return np.random.default_rng(seed).integers(VOCAB, size=(rows, steps)).astype(np.int32)


def some_carry(config, rows=3, seed=1):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
        initial_carry(config, rows),
    )


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_close(actual, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# The equations, one step of one row at a time, float64.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell_step(cell, layer, x, c, h):
    if cell in ("mingru", "minlstm"):
        gates = np.einsum("e,egh->gh", x, layer["kernel_x"]) + layer["bias"]
        f = 1 - sigmoid(gates[0])
        if cell == "minlstm":
            f = sigmoid(gates[0]) / (sigmoid(gates[0]) + sigmoid(gates[1]))
        return None, f * h + (1 - f) * gates[-1]

    def projected(of, kernel, gain):
        found = np.einsum("e,egh->gh", of, layer[kernel])
        if gain not in layer:
            return found
        found = found - found.mean()
        return layer[gain] * found / np.sqrt((found**2).mean() + 1e-5)

    from_x = projected(x, "kernel_x", "gain_x") + layer["bias"]
    from_h = projected(h, "kernel_h", "gain_h")

    def gate(k):
        return from_x[k], from_h[k]

    if cell == "rnn":
        return None, np.tanh(sum(gate(0)))
    if cell == "lstm":
        i, f, o = (sigmoid(sum(gate(k))) for k in (0, 1, 3))
        c = f * c + i * np.tanh(sum(gate(2)))
        return c, o * np.tanh(c)
    r, z = (sigmoid(sum(gate(k)) + layer["bias_h"][k]) for k in (0, 1))
    x_new, h_new = gate(2)
    new = np.tanh(x_new + r * (h_new + layer["bias_h"][2]))
    return None, (1 - z) * new + z * h


def by_the_equations(config, params, ids, carry):
    params, carry = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, carry))
    model, table = config.model, np.eye(VOCAB)
    if model.embedding_size is not None:
        table = params["embedding"]["table"]
    logits = np.zeros((*ids.shape, VOCAB))
    for row, text in enumerate(ids):
        for t, symbol in enumerate(text):
            x, total = table[symbol], 0.0
            for k in range(model.num_layers):
                layer = params["first"]
                if k > 0:
                    layer = {name: leaf[k - 1] for name, leaf in params["rest"].items()}
                c = carry.c[k, row] if model.cell == "lstm" else None
                c, h = cell_step(model.cell, layer, x, c, carry.h[k, row])
                carry.h[k, row] = h
                if model.cell == "lstm":
                    carry.c[k, row] = c
                x = x + h if model.residual and k > 0 else h
                total = total + x if model.sum_layers else x
            kernel = table.T if model.tied else params["head"]["kernel"]
            logits[row, t] = total @ kernel + params["head"]["bias"]
    return logits, carry


@pytest.mark.parametrize(("cell", "layers", "embedding"), SHAPES)
def test_apply_equals_the_equations(cell, layers, embedding):
    config = make_config(cell, layers, embedding)
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    actual = run(config, params, ids, carry)
    assert_close(actual, by_the_equations(config, params, ids, carry))
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("cell", "layers", "embedding", "ways"),
    [
        ("lstm", 3, None, ["residual"]),
        ("gru", 2, 5, ["sum_layers"]),
        ("rnn", 3, HIDDEN, ["tied", "residual", "sum_layers"]),
        ("lstm", 1, HIDDEN, ["tied", "residual", "sum_layers"]),
        ("lstm", 2, None, ["layer_norm"]),
        ("gru", 2, 5, ["layer_norm", "residual"]),
        ("rnn", 1, None, ["layer_norm"]),
    ],
)
def test_options_of_the_model_equal_the_equations(cell, layers, embedding, ways):
    fields = {f"model.{way}": True for way in ways}
    config = make_config(cell, layers, embedding, **fields)
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    assert_close(
        run(config, params, ids, carry), by_the_equations(config, params, ids, carry)
    )
    one_other = apply(config, params, ids, carry, recurrence=Recurrence("scan"))
    assert_close(one_other, by_the_equations(config, params, ids, carry))


@pytest.mark.parametrize(("layers", "embedding"), [(1, None), (2, 5), (3, None)])
@pytest.mark.parametrize("cell", RECURRENT)
def test_apply_and_its_gradient_equal_pytorch(cell, layers, embedding):
    torch = pytest.importorskip("torch")
    config = make_config(cell, layers, embedding)
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    targets = some_ids(seed=8)

    width = VOCAB if embedding is None else embedding
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell]
    stack = kind(width, HIDDEN, layers, batch_first=True)
    head = torch.nn.Linear(HIDDEN, VOCAB)
    tables = torch.tensor(np.eye(VOCAB, dtype=np.float32))
    if embedding is not None:
        tables = torch.tensor(np.array(params["embedding"]["table"]), requires_grad=True)

    def layer_of(tree, k):
        return {n: np.asarray(p if k == 0 else p[k - 1]) for n, p in tree.items()}

    def group(k):
        return "first" if k == 0 else "rest"

    with torch.no_grad():
        for k in range(layers):
            ours = layer_of(params[group(k)], k)
            for theirs, name in (("ih", "kernel_x"), ("hh", "kernel_h")):
                kernel = ours[name].reshape(ours[name].shape[0], -1).T
                getattr(stack, f"weight_{theirs}_l{k}").copy_(torch.tensor(kernel.copy()))
            getattr(stack, f"bias_ih_l{k}").copy_(torch.tensor(ours["bias"].reshape(-1)))
            bias = np.array(ours.get("bias_h", np.zeros_like(ours["bias"]))).reshape(-1)
            getattr(stack, f"bias_hh_l{k}").copy_(torch.tensor(bias))
        head.weight.copy_(torch.tensor(np.array(params["head"]["kernel"]).T.copy()))
        head.bias.copy_(torch.tensor(np.array(params["head"]["bias"])))

    h0 = torch.tensor(carry.h)
    state = (h0, torch.tensor(carry.c)) if cell == "lstm" else h0
    hidden, last = stack(tables[torch.tensor(ids).long()], state)
    logits = head(hidden)
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCAB), torch.tensor(targets.reshape(-1)).long()
    )
    loss.backward()

    def our_loss(params):
        logits, last = apply(config, params, ids, carry)
        nats = -jax.nn.log_softmax(logits)[
            jnp.arange(len(ids))[:, None], jnp.arange(ids.shape[1]), targets
        ]
        return nats.mean(), (logits, last)

    (value, (our_logits, our_last)), grads = jax.jit(
        jax.value_and_grad(our_loss, has_aux=True)
    )(params)
    assert_close(our_logits, logits.detach().numpy())
    assert_close(value, loss.detach().numpy())
    last = (last[1], last[0]) if cell == "lstm" else (last,)
    assert_close(tuple(our_last), tuple(part.detach().numpy() for part in last))

    for k in range(layers):
        ours = layer_of(grads[group(k)], k)
        for theirs, name in (("ih", "kernel_x"), ("hh", "kernel_h")):
            expected = getattr(stack, f"weight_{theirs}_l{k}").grad.numpy().T
            assert_close(ours[name].reshape(ours[name].shape[0], -1), expected)
        assert_close(ours["bias"].reshape(-1), getattr(stack, f"bias_ih_l{k}").grad.numpy())
        if cell == "gru":
            expected = getattr(stack, f"bias_hh_l{k}").grad.numpy()
            assert_close(ours["bias_h"].reshape(-1), expected)
    assert_close(grads["head"]["kernel"], head.weight.grad.numpy().T)
    assert_close(grads["head"]["bias"], head.bias.grad.numpy())
    if embedding is not None:
        assert_close(grads["embedding"]["table"], tables.grad.numpy())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", names())
def test_steps_at_once_equal_single_steps(cell, precision):
    config = make_config(cell, 3, **{"train.precision": precision})
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    logits, last = run(config, params, ids, carry)
    singles = []
    for t in range(ids.shape[1]):
        one, carry = run(config, params, ids[:, t : t + 1], carry)
        singles.append(one)
    tolerance = 1e-5 if precision == "float32" else 0.02
    assert_close((logits, last), (jnp.concatenate(singles, 1), carry), tolerance)


@pytest.mark.parametrize("cell", names())
def test_the_future_has_no_influence_and_the_past_has(cell):
    config = make_config(cell, 2, 5)
    params, ids, carry = some_params(config), some_ids(1, 6), some_carry(config, 1)
    logits = run(config, params, ids, carry)[0][0]
    for t in range(6):
        changed = ids.copy()
        changed[0, t] = (changed[0, t] + 1) % VOCAB
        other = run(config, params, changed, carry)[0][0]
        np.testing.assert_array_equal(logits[:t], other[:t])
        assert (logits[t:] != other[t:]).any(axis=-1).all()

    def score_at(table, t):
        tables = {**params, "embedding": {"table": table}}
        return apply(config, tables, np.arange(6)[None], carry)[0][0, t].sum()

    gradients = jax.jit(jax.vmap(jax.grad(score_at), (None, 0)))(
        params["embedding"]["table"], jnp.arange(6)
    )
    reached = np.asarray((gradients != 0).any(-1))[:, :6]
    np.testing.assert_array_equal(reached, np.tril(np.ones((6, 6), bool)))


@pytest.mark.parametrize("cell", names())
def test_reset_makes_just_those_rows_start_from_zero(cell):
    config = make_config(cell)
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    reset = np.array([False, True, False])
    cleared = jax.tree.map(lambda leaf: leaf * (1.0 - reset[:, None]), carry)
    first = reset[:, None]
    actual = run(config, params, ids, carry, first)
    assert_close(actual, run(config, params, ids, cleared), 1e-6)
    nowhere = run(config, params, ids, carry, first & ~first)
    assert_close(nowhere, run(config, params, ids, carry))
    # The same told for every step of the window.
    inside = np.zeros(ids.shape, bool)
    inside[:, 0] = reset
    assert_close(run(config, params, ids, carry, inside), actual, 1e-6)
    # Even a state that is no number is forgotten.
    poisoned = jax.tree.map(lambda leaf: np.where(reset[:, None], np.nan, leaf), carry)
    assert_close(run(config, params, ids, poisoned, first), actual, 1e-6)
    assert_close(run(config, params, ids, poisoned, inside), actual, 1e-6)


@pytest.mark.parametrize(
    ("cell", "layers", "embedding"), [("lstm", 3, None), ("gru", 2, 5), ("rnn", 1, None)]
)
def test_length_holds_the_state_of_each_row(cell, layers, embedding):
    config = make_config(cell, layers, embedding)
    params, ids, carry = some_params(config), some_ids(4, 5), some_carry(config, 4)
    lengths = np.array([5, 1, 3, 1], np.int32)
    logits, last = run(config, params, ids, carry, None, None, lengths)
    for row, length in enumerate(lengths):
        rows = slice(row, row + 1)
        alone = run(config, params, ids[rows, :length], pick(carry, np.s_[:, rows]))
        expected = alone[0][:, -1], alone[1]
        assert_close((logits[rows], pick(last, np.s_[:, rows])), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_ids_of_any_integer_type(dtype):
    config = make_config()
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    assert_close(
        run(config, params, ids.astype(dtype), carry), run(config, params, ids, carry), 0
    )


def test_dropout_needs_a_key_and_differs_by_key():
    config = make_config(**{"model.dropout": 0.5})
    params, ids, carry = some_params(config), some_ids(), some_carry(config)
    plain = run(make_config(), params, ids, carry)
    assert_close(run(config, params, ids, carry), plain, 0)
    one, again, other = (
        run(config, params, ids, carry, None, jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and (one != plain[0]).any()


def test_dropout_is_the_same_on_any_number_of_devices():
    config = make_config(**{"model.dropout": 0.5})
    params, ids, carry = some_params(config), some_ids(8, 4), some_carry(config, 8)
    key = jax.random.key(5)
    results = []
    for count in (1, 2, 8):
        mesh = Mesh(np.array(jax.devices()[:count]), ("rows",))

        def put(leaf, *axes, mesh=mesh):
            return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes)))

        placed = jax.tree.map(lambda leaf, put=put: put(leaf, None, "rows"), carry)
        results.append(run(config, put(params), put(ids, "rows"), placed, None, put(key)))
    assert_close(results[1], results[0], 1e-6)
    assert_close(results[2], results[0], 1e-6)


@pytest.mark.parametrize(("cell", "layers", "embedding"), SHAPES)
def test_parameter_paths_and_shapes(cell, layers, embedding):
    config, g, h = make_config(cell, layers, embedding), len(cell_named(cell).gates), HIDDEN
    layer = {"kernel_h": (h, g, h), "bias": (g, h)}
    if cell == "gru":
        layer["bias_h"] = (g, h)
    if cell not in RECURRENT:
        del layer["kernel_h"]
    expected = {
        "first": {"kernel_x": (embedding or VOCAB, g, h), **layer},
        "head": {"kernel": (h, VOCAB), "bias": (VOCAB,)},
    }
    if embedding:
        expected["embedding"] = {"table": (VOCAB, embedding)}
    if layers > 1:
        stacked = {"kernel_x": (h, g, h), **layer}
        expected["rest"] = {name: (layers - 1, *shape) for name, shape in stacked.items()}
    params = jax.eval_shape(lambda: init(config, VOCAB, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_initial_values(cell):
    hidden, vocab = 32, 50
    config = make_config(cell, 4, None, hidden, **{"model.forget_bias": 1.5})
    params = initialise(config, vocab, jax.random.key(0))
    gates = cell_named(cell).gates
    kernels = [params["first"]["kernel_h"], *params["rest"]["kernel_h"]]
    for kernel in kernels:
        matrices = np.asarray(kernel).transpose(1, 0, 2)
        for matrix in matrices:
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(hidden), atol=1e-5)
    # No two gates and no two layers begin alike.
    flat = np.concatenate([np.asarray(k).transpose(1, 0, 2) for k in kernels])
    others = np.concatenate(
        [np.asarray(k).transpose(1, 0, 2) for k in params["rest"]["kernel_x"]]
    )
    for group in (flat, others):
        distance = np.abs(group[:, None] - group[None]).max((2, 3))
        assert (distance + np.eye(len(group)) > 0.1).all()
    for bias in (params["first"]["bias"], *params["rest"]["bias"]):
        for name, row in zip(gates, np.asarray(bias), strict=True):
            assert (row == (1.5 if name == "forget" else 0.0)).all()
    if cell == "gru":
        assert not params["first"]["bias_h"].any() and not params["rest"]["bias_h"].any()
    assert not params["head"]["bias"].any()
    # One-hot input reads one row; the others sum `hidden` terms.
    assert abs(np.std(params["first"]["kernel_x"]) - 1) < 0.1
    assert abs(np.std(params["rest"]["kernel_x"]) - hidden**-0.5) < 0.02


@pytest.mark.parametrize("cell", names())
def test_the_program_does_not_grow_with_the_depth(cell):
    def lines(layers):
        config = make_config(cell, layers, **{"model.dropout": 0.5})
        key = jax.random.key(0)
        shapes = jax.eval_shape(
            lambda: (init(config, VOCAB, key), initial_carry(config, 2))
        )

        def loss(params, carry):
            ids = jnp.zeros((2, 3), jnp.int32)
            return apply(config, params, ids, carry, None, key)[0].sum()

        return len(jax.jit(jax.grad(loss)).lower(*shapes).as_text().splitlines())

    assert lines(3) == lines(9)


def test_init_and_apply_under_vmap_and_grad():
    config = make_config("rnn", 1, hidden=3)
    ids, carry = some_ids(), some_carry(config)
    keys = jax.random.split(jax.random.key(0), 3)
    several = jax.jit(jax.vmap(lambda key: init(config, VOCAB, key)))(keys)
    kernels = np.asarray(several["head"]["kernel"])
    assert (kernels[0] != kernels[1]).all() and (kernels[1] != kernels[2]).all()

    @jax.value_and_grad
    def loss(params):
        return (apply(config, params, ids, carry)[0] ** 2).mean()

    values, gradients = jax.jit(jax.vmap(loss))(several)
    single = jax.jit(loss)
    for k in range(3):
        assert_close((values[k], pick(gradients, k)), single(pick(several, k)))


def gradient_cases():
    """Every shape, of several steps and of one; where other cases have each pair, slow."""
    for (rows, steps), shape in itertools.product([(3, 5), (1, 1)], SHAPES):
        cell, layers, embedding = shape.values
        # A deep one with an embedding and a single layer without.
        quick = (layers != 2) and (steps > 1 or (layers == 1) == (embedding is None))
        marks = [] if quick else pytest.mark.slow
        yield pytest.param(
            *(cell, layers, embedding, rows, steps), marks=marks, id=f"{shape.id}-{steps}"
        )


@pytest.mark.parametrize(
    ("cell", "layers", "embedding", "rows", "steps"), [*gradient_cases()]
)
def test_gradients_equal_autodiff_of_the_plain_scan(cell, layers, embedding, rows, steps):
    config = make_config(cell, layers, embedding)
    params, ids = some_params(config), jnp.asarray(some_ids(rows, steps).T)
    reset = np.arange(rows) % 2 == 1
    carry = jax.tree.map(
        lambda leaf: np.where(reset[:, None], 0, leaf), some_carry(config, rows)
    )
    weights = np.random.default_rng(5).normal(size=(steps, rows, VOCAB))

    def results(dtype, recurrence):
        module = Network(config.model, VOCAB, dtype, recurrence)

        def total(params, carry):
            logits, after = module.apply({"params": params}, ids, carry)
            return (logits * weights).sum() + sum(map(jnp.sum, after)), (logits, after)

        exact = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, carry))
        return jax.jit(jax.grad(total, (0, 1), has_aux=True))(*exact)

    with jax.enable_x64(True):
        fast = results("float64", Recurrence("scan", cpu.ONE_DEVICE))
        plain = results("float64", Recurrence("plain"))
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(fast))
        assert_close(fast, plain, 1e-10)


def test_the_embedding_is_projected_by_symbol_or_by_position_alike():
    config = make_config(embedding=5)
    params = some_params(config)
    ids, carry = some_ids(1, 40), some_carry(config, 1)
    # Forty positions of seven symbols at once, or one position at a time.
    together, last = run(config, params, ids, carry)
    alone = []
    for t in range(ids.shape[1]):
        logits, carry = run(config, params, ids[:, t : t + 1], carry)
        alone.append(logits)
    assert_close((together, last), (jnp.concatenate(alone, 1), carry))


def test_a_state_of_another_float_type_is_taken_as_float32():
    config = Config().replace(**{"model.hidden_size": 8})
    params = initialise(config, 5, jax.random.key(0))
    ids = jnp.array([[1, 2, 3]])
    _, carry = run(config, params, ids, initial_carry(config, 1))
    for kind in (jnp.bfloat16, np.float64):
        other = jax.tree.map(lambda leaf, kind=kind: np.asarray(leaf).astype(kind), carry)
        rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), other)
        logits, after = run(config, params, ids, other)
        np.testing.assert_array_equal(logits, run(config, params, ids, rounded)[0])
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after))
