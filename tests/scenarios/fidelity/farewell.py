"""The order of the last things: threads, atexit, globals that are torn down."""

import atexit
import threading
import weakref


class Global:
    def __del__(self) -> None:
        print("a global is torn down", flush=True)


def late() -> None:
    main.join()
    print("a thread that outlives the main thread")


def forever() -> None:
    threading.Event().wait()


kept = Global()
weakref.finalize(kept, print, "finalised")
main = threading.main_thread()
atexit.register(print, "registered first, called last")
atexit.register(lambda: print("atexit on", threading.current_thread().name))
atexit.register(lambda: 1 / 0)
threading.Thread(target=forever, daemon=True).start()
threading.Thread(target=late).start()
assert 1 + 1 == 3, "sums"
