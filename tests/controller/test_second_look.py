import asyncio

from controller.second_look import SecondLook


async def test_a_thing_is_looked_at_at_once_and_again_once() -> None:
    looks: list[str] = []
    done = asyncio.Event()

    def look(key: str) -> None:
        looks.append(key)
        if looks.count("b") == 2:
            done.set()

    twice = SecondLook(look, delay_s=0.01)
    for key in ("a", "a", "a", "b"):
        twice(key)
    assert looks == ["a", "a", "a", "b"]
    await asyncio.wait_for(done.wait(), 5)
    assert looks == ["a", "a", "a", "b", "a", "b"]


async def test_no_second_look_is_left_when_it_is_closed() -> None:
    looks: list[str] = []
    twice = SecondLook(looks.append, delay_s=0)
    twice("a")
    twice.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert looks == ["a"]
