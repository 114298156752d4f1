from growir_alphabet import Alphabet
from growir.testing import policy_law
test_alphabet_obeys = policy_law(Alphabet)
