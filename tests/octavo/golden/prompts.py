"""The twenty prompts of the golden tests: real text of many kinds. The first six, the normal run's, already span the kinds."""

from typing import NamedTuple


class Prompt(NamedTuple):
    """``chat`` wraps the text as one user turn in the model's chat template."""

    name: str
    text: str
    chat: bool = False


ALICE = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she had
peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is the use of a book,"
thought Alice "without pictures or conversations?"

So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the
pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit
with pink eyes ran close by her.

There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit say to itself,
"Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it occurred to her that she ought to have wondered at
this, but at the time it all seemed quite natural); but when the Rabbit actually took a watch out of its waistcoat-pocket, and
looked at it, and then hurried on, Alice started to her feet, for it flashed across her mind that she had never before seen a
rabbit with either a waistcoat-pocket, or a watch to take out of it, and burning with curiosity, she ran across the field after
it, and fortunately was just in time to see it pop down a large rabbit-hole under the hedge."""

DECLARATION = """\
When in the Course of human events, it becomes necessary for one people to dissolve the political bands which have connected them
with another, and to assume among the powers of the earth, the separate and equal station to which the Laws of Nature and of
Nature's God entitle them, a decent respect to the opinions of mankind requires that they should declare the causes which impel
them to the separation.

We hold these truths to be self-evident, that all men are created equal, that they are endowed by their Creator with certain
unalienable Rights, that among these are Life, Liberty and the pursuit of Happiness. That to secure these rights, Governments are
instituted among Men, deriving their just powers from the consent of the governed, That whenever any Form of Government becomes
destructive of these ends, it is the Right of the People to alter or to abolish it, and to institute new Government, laying its
foundation on such principles and organizing its powers in such form, as to them shall seem most likely to effect their Safety and
Happiness. Prudence, indeed, will dictate that Governments long established should not be changed for light and transient causes;
and accordingly all experience hath shewn, that mankind are more disposed to suffer, while evils are sufferable, than to right
themselves by abolishing the forms to which they are accustomed. But when a long train of abuses and usurpations, pursuing
invariably the same Object evinces a design to reduce them under absolute Despotism, it is their right, it is their duty, to throw
off such Government, and to provide new Guards for their future security."""

HEAP = '''\
import heapq
from collections.abc import Hashable, Iterator


class PriorityQueue:
    """A queue whose smallest priority leaves first; equal priorities leave in order of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Hashable]] = []
        self._entries: dict[Hashable, tuple[int, int, Hashable]] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, item: Hashable, priority: int) -> None:
        """Add ``item``, or change its priority if it is already waiting."""
        entry = (priority, self._arrivals, item)
        self._arrivals += 1
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)

    def pop(self) -> Hashable:
        """Remove and return the item with the smallest priority."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if self._entries.get(entry[2]) is entry:
                del self._entries[entry[2]]
                return entry[2]
        raise IndexError("pop from an empty queue")

    def __iter__(self) -> Iterator[Hashable]:
        """The items in the order in which they would leave."""
'''

PROMPTS = [
    Prompt("capital", "The capital of France is"),
    Prompt("alice", ALICE),
    Prompt("chat-sky", "Why is the sky blue? Answer in two sentences.", chat=True),
    Prompt("fibonacci", 'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n'),
    Prompt("german", "Am Anfang schuf Gott Himmel und Erde. Und die Erde war wüst und leer, und es war finster auf der Tiefe;"),
    Prompt("emoji", "🎉 Happy birthday! 🎂 Here are three fun facts about cakes 🍰:\n1."),
    Prompt("declaration", DECLARATION),
    Prompt("heap", HEAP),
    Prompt("chat-poem", "Write a short poem about the sea and a lighthouse.", chat=True),
    Prompt("chat-alice", "Summarise this text in one paragraph:\n\n" + ALICE, chat=True),
    Prompt(
        "french", "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, mes yeux se fermaient si vite"
    ),
    Prompt("spanish", "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo"),
    Prompt("chinese", "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？"),
    Prompt("japanese", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
    Prompt("russian", "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."),
    Prompt("sql", "SELECT customers.name, SUM(orders.total) AS spent\nFROM customers\nJOIN orders ON"),
    Prompt("json", '{"name": "octavo", "version": 1, "tags": ["paged", "streaming"], "limits": {"max_tokens":'),
    Prompt("sums", "1 + 1 = 2\n2 + 2 = 4\n4 + 4 = 8\n8 + 8 ="),
    Prompt("recipe", "Ingredients:\n- 2 cups flour\n- 1 cup sugar\n- 3 eggs\n\nInstructions:\n1."),
    Prompt("chat-list", "List five animals that live in the ocean, with one fact about each.", chat=True),
]
