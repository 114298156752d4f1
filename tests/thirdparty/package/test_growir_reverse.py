from growir_reverse import Reverse
from growir.testing import pass_law
test_reverse_keeps_its_promise = pass_law(Reverse)
