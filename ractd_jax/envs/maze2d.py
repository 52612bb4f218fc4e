"""D4RL's Maze2d: a ball pushed by two forces through a maze, as a Gymnasium environment.

Made again after the benchmark's description (Fu et al. 2020, "D4RL", and Farama-Foundation/D4RL,
`pointmaze`): the same physics, coordinates, resets and sparse reward, on today's MuJoCo. Ids:
`ractd_jax/Maze2d-{umaze,medium,large}-v1`, known to Gymnasium once this module is imported.

Coordinates: cells are (row, column); a position is the ball's offset from (1.2, 1.2), and the wall
of a cell is a box of side 1 around (row + 1, column + 1). So the integer position (row, column) is
inside its cell but 0.2 from its middle, and free space reaches from row - 0.6 to row + 0.2.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo is a compiled module without type stubs)

from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Float, UInt8

from ractd_jax import errors, tasks
from ractd_jax.envs import physics

# '#' wall, 'O' free, 'G' free and the goal
LAYOUTS = {
    "umaze": "#####/#GOO#/###O#/#OOO#/#####",
    "medium": "########/#OO##OO#/#OO#OOO#/##OOO###/#OO#OOO#/#O#OO#O#/#OOO#OG#/########",
    "large": "############/#OOOO#OOOOO#/#O##O#O#O#O#/#OOOOOO#OOO#/#O####O###O#/#OO#O#OOOOO#/"
    "##O#O#O#O###/#OO#OOO#OGO#/############",
}
TIMESTEP = 0.01  # seconds; an action lasts one step
MAX_SPEED = 5.0  # of each component, before a step
GOAL_RADIUS = 0.5
START_NOISE, SPEED_NOISE = 0.1, 0.1  # half width of a uniform, standard deviation of a normal law
ORIGIN, RADIUS = 1.2, 0.1  # of the ball
PIXELS = 32  # a cell of a rendered frame

Cell = tuple[int, int]


class Maze(NamedTuple):
    """A parsed layout.

    Attributes:
        rows: one string a row of cells.
        cells: the free cells in reading order, and last the goal.
        goal: the cell marked 'G'.
    """

    rows: tuple[str, ...]
    cells: tuple[Cell, ...]
    goal: Cell

    def free(self, cell: Cell) -> bool:
        """Return whether a cell is in the maze and no wall."""
        return cell in self.cells


def get(name: str) -> Maze:
    """Return a maze: `umaze`, `medium` or `large`.

    Raises:
        UserError: there is none of this name; the message gives the nearest one.

    Example:
        >>> get("umaze").goal
        (1, 1)
    """
    rows = tuple(LAYOUTS[errors.choose("maze", name, LAYOUTS)].split("/"))
    tiles = {(i, j): tile for i, row in enumerate(rows) for j, tile in enumerate(row)}
    goal = next(cell for cell, tile in tiles.items() if tile == "G")
    return Maze(rows, (*(cell for cell, tile in tiles.items() if tile == "O"), goal), goal)


def of_task(task: tasks.TaskSpec) -> Maze:
    """Return the maze of a Maze2d task.

    Raises:
        UserError: it is no Maze2d task.
    """
    if task.domain != "maze2d":
        raise errors.UserError(f"{task.name} is no Maze2d task: use maze2d-umaze-v1, for example")
    return get(task.name.removeprefix("maze2d-").removesuffix("-v1"))


def mjcf(maze: Maze) -> str:
    """Return the maze as a MuJoCo model.

    D4RL gives every geom a margin of 0.002, of which its MuJoCo took the larger of a pair. Today's
    takes the sum, so here the walls alone have one. Its floor touches the ball, but without
    friction, and the ball cannot move up or down; it is left out.
    """
    walls = "".join(
        f'<geom type="box" pos="{i + 1} {j + 1} 0" size=".5 .5 .2" margin=".002"/>'
        for i, row in enumerate(maze.rows)
        for j, tile in enumerate(row)
        if tile == "#"
    )
    return f"""<mujoco model="maze2d">
      <compiler inertiafromgeom="true"/>
      <option timestep="{TIMESTEP}" gravity="0 0 0" iterations="20" integrator="Euler"/>
      <default>
        <joint type="slide" damping="1" limited="false"/>
        <geom friction=".5 .1 .1" density="1000" condim="1" contype="2" conaffinity="1"/>
        <motor ctrlrange="-1 1" ctrllimited="true" gear="100"/>
      </default>
      <worldbody>
        {walls}
        <body name="particle" pos="{ORIGIN} {ORIGIN} 0">
          <geom type="sphere" size="{RADIUS}" contype="1"/>
          <joint name="x" axis="1 0 0"/>
          <joint name="y" axis="0 1 0"/>
        </body>
      </worldbody>
      <actuator><motor joint="x"/><motor joint="y"/></actuator>
    </mujoco>"""


def compiled(maze: Maze) -> mujoco.MjModel:
    """Return the maze's compiled model, with the original's numbers for the ball."""
    model = mujoco.MjModel.from_xml_string(mjcf(maze))
    physics.restore(model, "maze2d")
    return model


def simulate(model: Any, data: Any, action: Any) -> None:
    """Advance MuJoCo's `data` by one step: clip the velocity first, then push.

    Args:
        model: see `compiled`.
        data: its state.
        action: (2,), in [-1, 1]; times 100 newton.
    """
    np.clip(data.qvel, -MAX_SPEED, MAX_SPEED, out=data.qvel)
    data.ctrl[:] = action
    mujoco.mj_step(model, data)


def random_location(maze: Maze, rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    """Return a random cell's position plus noise: where episodes start, and targets lie."""
    cell = np.array(maze.cells[rng.integers(len(maze.cells))])
    return cell + rng.uniform(-START_NOISE, START_NOISE, 2)


def at_goal(
    positions: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "2"]
) -> Float[np.ndarray, " n"]:
    """Return the sparse reward of positions: 1 within 0.5 of the target, else 0.

    Example:
        >>> at_goal(np.array([[1.0, 1.4], [1.0, 1.6]]), np.array([1.0, 1.0])).tolist()
        [1.0, 0.0]
    """
    distance = np.linalg.norm(positions.astype(np.float64) - target, axis=-1)
    return (distance <= GOAL_RADIUS).astype(np.float32)


def from_pointmaze(
    states: Float[np.ndarray, "n 4"], actions: Float[np.ndarray, "m 2"], maze: Maze
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "m 2"]]:
    """Return gymnasium-robotics' PointMaze states and actions in D4RL's coordinates.

    In PointMaze the middle of the maze is (0, 0), x grows with the column and y against the row.

    Args:
        states: x, y, vx, vy of PointMaze.
        actions: forces along x and y.
        maze: the one that the states are of.

    Raises:
        UserError: positions lie in walls, so that it was another maze.
    """
    height, width = len(maze.rows), len(maze.rows[0])
    x, y, vx, vy = np.asarray(states).T
    # A cell's middle is 0.2 before its integer position, and half a cell after its edge.
    states = np.stack([height / 2 - y - 0.7, x + width / 2 - 0.7, -vy, vx], axis=1)
    free = np.zeros((height, width), bool)
    free[tuple(np.transpose(maze.cells))] = True
    cells = np.floor(states[:, :2] + 0.7).astype(int)
    inside = np.array(((cells >= 0) & (cells < (height, width))).all(axis=1))
    inside[inside] = free[tuple(cells[inside].T)]
    if not inside.all():
        raise errors.UserError(
            f"{(~inside).mean():.0%} of its positions lie in walls of {' / '.join(maze.rows)}: it "
            "is of another maze"
        )
    return states, np.stack([-actions[:, 1], actions[:, 0]], axis=1)


class Maze2d(gymnasium.Env):
    """A maze with D4RL's evaluation goal; an episode ends at its time limit alone.

    Observation: position and velocity (x, y, vx, vy), metres and metres a second.
    Action: two forces in [-1, 1]; what lies outside is clipped.

    Args:
        maze: `umaze`, `medium` or `large`.
        render_mode: None or `rgb_array`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / TIMESTEP)}  # noqa: RUF012

    def __init__(self, maze: str = "umaze", render_mode: str | None = None):
        self.maze, self.render_mode = get(maze), render_mode
        self.model = compiled(self.maze)
        self.data = mujoco.MjData(self.model)
        self.target = np.array(self.maze.goal, np.float64)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    @property
    def dt(self) -> float:
        """Seconds an action lasts."""
        return TIMESTEP

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "4"], dict[str, Any]]:
        """Start in a random cell, nearly at rest.

        Args:
            seed: of the start.
            options: `cell` (row, column) to start in, and `target` (x, y) of the reward; by default
                a random free one, and the goal of the layout.

        Raises:
            UserError: an unknown option, or a cell that is not free.
        """
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            errors.choose("reset option", name, ("cell", "target"))
        mujoco.mj_resetData(self.model, self.data)
        self.target = np.array(options.get("target", self.maze.goal), np.float64)
        self.data.qpos[:] = random_location(
            self.maze._replace(cells=self._starts(options)), self.np_random
        )
        self.data.qvel[:] = self.np_random.normal(0.0, SPEED_NOISE, 2)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, "4"], float, bool, bool, dict[str, Any]]:
        """Push for 0.01 seconds; the reward is that of the position reached.

        Raises:
            UserError: the action has another shape.
        """
        if np.shape(action) != (2,):
            raise errors.UserError(f"a Maze2d action has shape (2,), not {np.shape(action)}")
        simulate(self.model, self.data, np.clip(action, -1.0, 1.0))
        reward = float(at_goal(self.data.qpos[None], self.target)[0])
        return self._observation(), reward, False, False, {}

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the maze from above, rows downwards: walls, target (red) and ball (blue)."""
        shape = len(self.maze.rows), len(self.maze.rows[0])
        # in positions; a wall's box begins 0.7 before its integer position
        x, y = (np.arange(n * PIXELS) / PIXELS - 0.7 for n in shape)
        wall = np.array([[tile == "#" for tile in row] for row in self.maze.rows])
        frame = np.where(np.kron(wall, np.ones((PIXELS, PIXELS), bool))[..., None], 96, 245)
        frame = np.broadcast_to(frame, (*frame.shape[:2], 3)).astype(np.uint8)
        places = (self.target, 2 * RADIUS, (200, 56, 79)), (self.data.qpos, RADIUS, (61, 116, 184))
        for (row, column), radius, color in places:
            frame[np.hypot(x[:, None] - row, y[None, :] - column) <= radius] = color
        return frame

    def _starts(self, options: dict[str, Any]) -> tuple[Cell, ...]:
        if "cell" not in options:
            return self.maze.cells
        cell = tuple(options["cell"])
        if not self.maze.free(cell):
            raise errors.UserError(
                f"cannot start in cell {cell}: give the (row, column) of an O or the G in "
                f"{' / '.join(self.maze.rows)}"
            )
        return (cell,)

    def _observation(self) -> Float[np.ndarray, "4"]:
        return np.concatenate([self.data.qpos, self.data.qvel])


for _name in LAYOUTS:
    gymnasium.register(
        f"ractd_jax/Maze2d-{_name}-v1",
        "ractd_jax.envs.maze2d:Maze2d",
        max_episode_steps=tasks.get(f"maze2d-{_name}-v1").max_episode_steps,
        kwargs={"maze": _name},
    )
