"""Everything that answers chats: the agents, what is known already, conversations, and the carriers' handlers."""

from service.agents.catalogue import Catalogue
from service.agents.runner import Runner
from service.http.streams import Streams
from service.limits.slots import Slots
from service.routes.answering import Answering
from service.routes.chat import ChatRoutes
from service.routes.completions import CompletionRoutes
from service.routes.recall import AnswerCodec, Recall, cacheable
from service.routes.streaming import Streaming
from service.usage.ledger import Ledger
from service.wiring.cache import Caching
from service.wiring.ground import Ground
from service.wiring.sessions import open_sessions


class Chats:
    """Made once, by `open_node`."""

    def __init__(
        self,
        ground: Ground,
        catalogue: Catalogue,
        runner: Runner,
        caching: Caching,
        ledger: Ledger,
        slots: Slots,
        streams: Streams,
    ) -> None:
        self.catalogue = catalogue
        self.sessions = open_sessions(ground)
        recall = Recall(runner, caching.flights(AnswerCodec(), cacheable), ground.settings)
        self.answering = Answering(runner, recall, self.sessions, ledger)
        streaming = Streaming(self.answering, slots, streams)
        self.chat = ChatRoutes(self.answering, streaming)
        max_age_s = ground.settings.catalogue_max_age
        self.completions = CompletionRoutes(catalogue, runner, self.answering, streaming, max_age_s)
