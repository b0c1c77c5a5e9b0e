"""One function of a table, chosen at run time by its code: how a table of compiled functions becomes a switch."""

from __future__ import annotations

from numba import types
from numba.core import cgutils


def choose(typingctx, functions, arguments, through=None):
    """Signature and code of functions[code](*arguments), for the typing function of an intrinsic of (code, *arguments).

    The functions are compiled kernels that return the same type; `code` must be one of their positions. With a kernel
    `through` it is through(functions[code], *arguments): a loop around the function, so that it is chosen once.
    """
    dispatchers = [types.Dispatcher(function) for function in functions]
    if through is None:
        signatures = [dispatcher.get_call_type(typingctx, arguments, {}) for dispatcher in dispatchers]
    else:
        loop = types.Dispatcher(through)
        signatures = [loop.get_call_type(typingctx, (dispatcher, *arguments), {}) for dispatcher in dispatchers]
    returned = signatures[0].return_type

    def codegen(context, builder, sig, args):
        result = None if returned == types.none else cgutils.alloca_once(builder, context.get_value_type(returned))
        after = builder.append_basic_block("chosen")
        blocks = [builder.append_basic_block(f"choice{i}") for i in range(len(functions))]
        switch = builder.switch(args[0], blocks[-1])
        for i, block in enumerate(blocks):
            if block is not blocks[-1]:
                switch.add_case(i, block)
            builder.position_at_end(block)
            if through is None:
                value = context.get_function(dispatchers[i], signatures[i])(builder, args[1:])
            else:
                function = context.get_dummy_value()  # known by its type alone
                value = context.get_function(loop, signatures[i])(builder, (function, *args[1:]))
            if result is not None:
                builder.store(value, result)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value() if result is None else builder.load(result)

    return returned(types.int64, *arguments), codegen
