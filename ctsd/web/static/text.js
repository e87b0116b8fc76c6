// Elements that hold text. Nothing on this page ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element of a class, with strings and elements in it. */
export function make(tag, className, ...inside) {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  element.append(...inside.filter((one) => one !== "" && one !== null));
  return element;
}

/** One of the page's icons: it goes with words, so it says nothing itself. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  drawing.setAttribute("class", `icon ${name}`);
  drawing.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  drawing.append(use);
  return drawing;
}

/** "1 finding", "3 findings". */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** Seconds for people. */
export function duration(secs) {
  if (secs < 100) {
    return `${secs} s`;
  }
  return secs < 5400 ? `${Math.round(secs / 60)} min` : `${Math.round(secs / 3600)} h`;
}

/** A time of day. */
export function clock(date) {
  return date.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  });
}

/** Let a button copy what a function gives. */
export function copies(button, text) {
  button.addEventListener("click", async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      // Browsers give the clipboard to TLS and loopback pages alone.
      said = "Select it to copy";
    }
    button.textContent = said;
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
