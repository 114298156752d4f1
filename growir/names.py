"""Which names a document may use.

Names become Python attributes in generated code, keys of a state_dict and parts of messages, so the rule is strict:
ASCII segments joined by dots, none of them a word that Python, torch.nn.Module or torch.fx already uses.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 200
PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9_]{1,64})*$"  # what a schema can say of the rule
_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_LATER = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,63}|[0-9]{1,64})\Z")

# Attributes of torch.nn.Module and torch.fx.GraphModule and the globals of fx's generated code (a test with torch keeps
# this list current); `self` is the first argument of every forward, `getattr` how generated code reaches a module that
# is called by a number, and `growir_document`, `growir_part` and `growir_values` are what growir puts there.
RESERVED = frozenset(
    """
    T_destination add_module add_submodule apply bfloat16 buffers call_super_init children code compile cpu cuda
    delete_all_unused_submodules delete_submodule device double dump_patches eval extra_repr float forward fx_pytree
    get_buffer get_extra_state get_parameter get_submodule getattr graph half inf ipu load_state_dict meta modules mtia
    named_buffers named_children named_modules named_parameters nan NoneType parameters print_readable pytree recompile
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ self
    set_extra_state set_submodule shape_env share_memory state_dict to to_empty to_folder torch train training type xpu
    zero_grad growir_document growir_part growir_values
    _apply _backward_hooks _backward_pre_hooks _boxed_call _buffers _call_impl _code _compiled_call_impl
    _create_node_hooks _deepcopy_hooks _deepcopy_init _erase_node_hooks _forward_hooks _forward_hooks_always_called
    _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs _get_backward_hooks
    _get_backward_pre_hooks _get_name _graph _is_full_backward_hook _lineno_map _load_from_state_dict
    _load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook _modules _named_members
    _non_persistent_buffers_set _parameters _prologue_start _recompile_submodules _register_create_node_hook
    _register_deepcopy_hook _register_erase_node_hook _register_load_state_dict_pre_hook _register_replace_node_hook
    _register_state_dict_hook _replace_hooks _replicate_for_data_parallel _save_to_state_dict _set_replace_hook
    _slow_forward _state_dict_hooks _state_dict_pre_hooks _tracer_cls _tracer_extras _unregister_create_node_hook
    _unregister_deepcopy_hook _unregister_erase_node_hook _unregister_replace_node_hook _version _wrapped_call
    _wrapped_call_impl
    """.split()
)


def fault(name: str) -> str | None:
    """Say what is wrong with a name, or None."""
    if not name:
        return "a name may not be empty"
    if len(name) > MAX_LENGTH:
        return f"the name has {len(name)} characters; at most {MAX_LENGTH} are allowed"
    for k, segment in enumerate(name.split(".")):
        if not segment:
            return "a name has text on both sides of each dot"
        if not (_LATER if k else _FIRST).match(segment):
            return (
                "a name is made of segments joined by dots; each starts with a letter or _ and goes on with "
                "A-Z, a-z, 0-9 or _, at most 64 characters (segments after the first may be digits)"
            )
        if keyword.iskeyword(segment) or segment in RESERVED or (segment[:2] == "__" == segment[-2:]):
            return f"{segment!r} is a word of Python or torch; try {segment}_ instead"
    return None


def title_fault(title: str) -> str | None:
    """Say what is wrong with the name of a graph, which is shown and kept but never code, or None."""
    if len(title) > MAX_LENGTH:
        return f"a string of at most {MAX_LENGTH} characters is needed"
    strange = next((c for c in title if unicodedata.category(c) in ("Cc", "Cs")), None)
    if strange is not None:
        return f"the character {strange!a} cannot be written to every file; leave it out"
    return None


def allot(stem: str, taken: Iterable[str]) -> str:
    """Return `stem_k` with k past the highest suffix in use, so that no name ever comes back."""
    prefix, taken = stem + "_", list(taken)
    tails = (name.removeprefix(prefix) for name in taken if name.startswith(prefix))
    # Longer numbers are passed over, which is safe: none is ever allotted.
    following = 1 + max((int(tail) for tail in tails if re.fullmatch(r"[0-9]{1,18}", tail)), default=0)
    return f"{prefix}{following}" if following < 10**18 else allot("x" + stem, taken)
